"""What bursar is to keep to: each target's figure, its *must* and its *goal*."""

from dataclasses import dataclass
from typing import Callable

from workloads import EVENTS


@dataclass(frozen=True)
class Target:
    says: str
    must: float
    goal: float
    value: Callable      # (figures, variant) -> number, text that says why there is none, or None if it was not measured
    unit: str = ""
    at_least: bool = False   # else at most

    def verdict(self, value):
        if value is None:
            return "not measured"
        if isinstance(value, str):
            return f"**missed**: {value}"
        if self._holds(value, self.goal):
            return "met"
        if self._holds(value, self.must):
            return "met, short of the goal"
        return f"**missed** by {abs(value - self.must):.3g}{self.unit}"

    def _holds(self, value, bound):
        return value >= bound if self.at_least else value <= bound

    def bounds(self):
        sign = "≥" if self.at_least else "≤"
        return [f"{sign} {bound:g}{self.unit}" for bound in (self.must, self.goal)]


def extra(workload, per=1):
    def value(figures, variant):
        figure = figures.extra(variant, workload)
        return refused(figure) or (figure.middle / per if figure else None)
    return value


def refused(figure):
    return ", ".join(str(status or "cut") for status in sorted(figure.failed)) if figure.failed else None


def cheaper_than(rival, workload):
    def value(figures, variant):
        mine, theirs = (figures.extra(name, workload) for name in (variant, rival))
        if mine and theirs and mine.middle <= 0:
            return "the module's part is lost in the noise"
        return figures.ratio(rival, variant, workload)
    return value


def of_no_op(workload):
    return lambda figures, variant: figures.ratio(variant, "noop", workload, of_extra=False)


def later_first_byte(figures, variant):
    figure = figures.extra(variant, "first", lambda sample: sample.counts["first.p50"] / 1e6)
    return figure.middle if figure else None


def later_p99(figures, variant):
    def percentile(name):
        return figures.absolute(name, "rate", lambda sample: sample.counts["last.p99"])
    mine, alone = percentile(variant), percentile("none")
    return 100 * (mine.middle / alone.middle - 1) if mine and alone else None


US, MS, TIMES = " µs", " ms", "×"
TARGETS = (
    Target("2 KB: CPU over no filter", 14, 10, extra("2k"), US),
    Target("128 KB: CPU over no filter", 43, 33, extra("128k"), US),
    Target("1 MB: CPU over no filter", 200, 155, extra("1m"), US),
    Target("1 MB, buffers of 32 KiB: CPU over no filter, and no 413", 250, 250, extra("1m-32k"), US),
    Target("a streamed event, each by itself: CPU over no filter", 1.5, 0.8, extra("paced", EVENTS), US),
    Target("2 KB: CPU as a multiple of the no-op filter's", 1.30, 1.20, of_no_op("2k"), TIMES),
    Target("128 KB: cheaper than the DOM way", 3, 4, cheaper_than("dom", "128k"), TIMES, at_least=True),
    Target("1 MB: cheaper than the DOM way", 5, 7, cheaper_than("dom", "1m"), TIMES, at_least=True),
    Target("2 KB: cheaper than the shape of an AI gateway", 8, 12, cheaper_than("gateway", "2k"), TIMES, at_least=True),
    Target("2 KB: cheaper than `ai_protocol_manager`", 2, 3, cheaper_than("manager", "2k"), TIMES, at_least=True),
    Target("first byte of a stream: later than with no filter", 0.2, 0.2, later_first_byte, MS),
    Target("2,000 requests a second: p99 over no filter's", 10, 10, later_p99, " %"),
)
