"""What the samples come to: medians and spreads."""

from dataclasses import dataclass
from statistics import median, quantiles


@dataclass
class Figure:
    middle: float
    low: float     # quartiles
    high: float
    count: int
    kept: int      # of the rounds: those that nobody disturbed, or all where too few are left
    failed: dict   # answers by status; no figure then
    all_disturbed: bool = False

    def __bool__(self):
        return not self.failed and self.count > 0


class Figures:
    """The samples of a run, by variant and workload."""

    def __init__(self, samples, base="none"):
        self.base = base
        self.by = {}
        for sample in samples:
            self.by.setdefault((sample.variant, sample.workload), {})[sample.round] = sample

    def absolute(self, variant, workload, value=lambda sample: sample.cpu()):
        rounds = self.by.get((variant, workload), {})
        return figure([(value(sample), sample.disturbed, sample.failed()) for sample in rounds.values()])

    def extra(self, variant, workload, value=lambda sample: sample.cpu()):
        """Over the base, each round by itself."""
        rounds, bases = self.by.get((variant, workload), {}), self.by.get((self.base, workload), {})
        return figure([(value(sample) - value(bases[number]), sample.disturbed or bases[number].disturbed, sample.failed())
                       for number, sample in rounds.items() if number in bases])

    def times(self, variant, other, workload):
        """How many times the CPU of the second the first takes, each round by itself."""
        rounds, others = self.by.get((variant, workload), {}), self.by.get((other, workload), {})
        return figure([(sample.cpu() / others[number].cpu(), sample.disturbed or others[number].disturbed, {**sample.failed(), **others[number].failed()})
                       for number, sample in rounds.items() if number in others])

    def ratio(self, variant, other, workload):
        """How many times as much the part of the first costs as that of the second: of medians, since a small difference is a poor divisor."""
        above, below = self.extra(variant, workload), self.extra(other, workload)
        return above.middle / below.middle if above and below and below.middle > 0 else None


def figure(values):
    """Of (value, whether it was disturbed, what failed)."""
    failed = {}
    for _, _, statuses in values:
        for status, number in statuses.items():
            failed[status] = failed.get(status, 0) + number
    calm = [value for value, disturbed, _ in values if not disturbed]
    # Where others were at work nearly all the time, a figure is better than none: it is marked.
    all_disturbed = 2 * len(calm) < len(values)
    kept = [value for value, _, _ in values] if all_disturbed else calm
    if not kept:
        return Figure(0, 0, 0, 0, 0, failed)
    low, _, high = quantiles(kept, n=4, method="inclusive") if len(kept) > 1 else (kept[0],) * 3
    return Figure(median(kept), low, high, len(values), len(kept), failed, all_disturbed)
