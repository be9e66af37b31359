"""What bursar is to keep to: each target's figure, its *must* and its *goal*."""

from dataclasses import dataclass
from typing import Callable

from variants import BEFORE


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


def of_before(workload):
    """Bursar's part, as a multiple of the same of the module before."""
    def value(figures, variant):
        return part_of(figures, variant, workload) or figures.ratio(variant, LIKE_BEFORE[variant], workload)
    return value


def of_alone(workload):
    """Bursar's part, as a multiple of what Envoy takes without it."""
    def value(figures, variant):
        mine, alone = figures.extra(variant, workload), figures.absolute(figures.base, workload)
        return part_of(figures, variant, workload) or (mine.middle / alone.middle if mine and alone else None)
    return value


def cheaper_than(rival, workload):
    def value(figures, variant):
        return part_of(figures, variant, workload) or figures.ratio(rival, variant, workload)
    return value


def passing_of_held(workload):
    def value(figures, _):
        return part_of(figures, "held", workload) or figures.ratio("passing", "held", workload)
    return value


def part_of(figures, variant, workload):
    """Why there is no figure of bursar's part; `None` if there is one, or if it was not measured."""
    figure = figures.extra(variant, workload)
    if figure.failed:
        return ", ".join(str(status or "cut") for status in sorted(figure.failed))
    return "the module's part is lost in the noise" if figure and figure.middle <= 0 else None


def served_of_alone(workload):
    def value(figures, variant):
        mine, alone = (figures.absolute(name, workload, lambda sample: sample.throughput()) for name in (variant, figures.base))
        return mine.middle / alone.middle if mine and alone else None
    return value


def p99_of_no_op(figures, variant):
    mine, other = (figures.absolute(name, "rate", lambda sample: sample.counts["last.p99"]) for name in (variant, "noop"))
    return mine.middle / other.middle if mine and other else None


LIKE_BEFORE = dict(BEFORE)
TIMES = "×"
# In host calls, in memory and until it is ready: make budget, and scale.py.
TARGETS = (
    Target("2 KB: bursar's part ÷ that of the module before", 0.50, 0.35, of_before("2k"), TIMES),
    Target("2 KB: bursar's part ÷ Envoy alone", 0.45, 0.33, of_alone("2k"), TIMES),
    Target("2 KB: cheaper than the shape of an AI gateway", 7, 10, cheaper_than("gateway", "2k"), TIMES, at_least=True),
    Target("128 KB: cheaper than the DOM way", 5, 7, cheaper_than("dom", "128k"), TIMES, at_least=True),
    Target("128 KB: passing ÷ held", 1.05, 1, passing_of_held("128k"), TIMES),
    Target("1 MB: bursar's part ÷ that of the module before", 0.7, 0.5, of_before("1m"), TIMES),
    Target("a streamed event: bursar's part ÷ that of the module before", 0.7, 0.5, of_before("paced"), TIMES),
    Target("2 KB: requests a second of one worker ÷ Envoy alone", 0.72, 0.8, served_of_alone("2k"), TIMES, at_least=True),
    Target("half of the load that Envoy alone bears: p99 ÷ the no-op filter's", 1.15, 1.05, p99_of_no_op, TIMES),
)
