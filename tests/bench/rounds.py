"""Samples: rounds in which every variant takes its turn at every workload, in an order that chance decides."""

import random
from dataclasses import asdict, dataclass, field, replace

from stage import Stage, busy_nanos
from workloads import BY_NAME

WARM = 4        # a quarter of a sample's requests come before it, uncounted
TRIES = 2       # of a sample that was disturbed
# More than this share of a sample's time, or so many of the kernel's ticks, taken on one of the two cores by anybody else.
FOREIGN_SHARE, FOREIGN_NANOS = 0.05, 30_000_000


@dataclass
class Sample:
    generation: int   # of processes
    round: int
    variant: str
    workload: str
    requests: int
    envoy: float      # CPU microseconds a request
    side: float       # the same of the process beside it
    foreign: float    # the share of the time that others had of the busier of the two cores
    disturbed: bool
    counts: dict = field(default_factory=dict)   # load/src/tally.rs

    def cpu(self):
        return self.envoy + self.side

    def failed(self):
        """What the answers said instead of 200, by status."""
        return {int(name.split(".")[1]): number for name, number in self.counts.items()
                if name.startswith("status.") and name != "status.200"}

    def throughput(self):
        return 1e9 * self.requests / self.counts["wall"]


def play(variants, workloads, generations, rounds, share=1.0, seed=None):
    """All samples, and what the variants have counted: {variant: (requests, tokens)}. `share`: of a sample's requests."""
    chance = random.Random(seed)
    samples, witnesses = [], []
    for generation in range(generations):
        with Stage(variants) as stage:
            asked = {variant.name: Asked() for variant in variants}
            if generation == 0:
                workloads = paced_by_alone(stage, variants, workloads, share, asked)
            for number in range(rounds):
                for workload in shuffled(chance, workloads):
                    for variant in shuffled(chance, variants):
                        sample = take(stage, variant, workload, share, asked[variant.name])
                        sample.generation, sample.round = generation, generation * rounds + number
                        samples.append(sample)
                print(f"round {generation * rounds + number + 1} of {generations * rounds}", flush=True)
            witnesses += [witness(stage, variant, asked[variant.name]) for variant in variants]
    return samples, witnesses


def paced_by_alone(stage, variants, workloads, share, asked):
    """What comes at a rate comes at half of that which Envoy alone bears here."""
    alone = next((variant for variant in variants if variant.name == "none"), None)
    if alone is None or not any(workload.rate for workload in workloads):
        return workloads
    rate = max(int(take(stage, alone, BY_NAME["2k"], share, asked[alone.name]).throughput() / 2), 1)
    print(f"half of what Envoy alone bears: {rate:,} requests a second", flush=True)
    return [replace(workload, rate=rate) if workload.rate else workload for workload in workloads]


def shuffled(chance, items):
    return chance.sample(list(items), len(items))


@dataclass
class Asked:
    """What a variant was asked since its Envoy began."""

    served: int = 0      # with 200
    seen: int = 0        # by the upstream
    rewritten: int = 0

    def add(self, counts):
        self.served += counts.get("status.200", 0)
        self.seen += counts["seen"]
        self.rewritten += counts["rewritten"]


def witness(stage, variant, asked):
    """Whether a variant did what it is there for."""
    used = variant.used and variant.used(stage.envoys[variant.name], stage.sides.get(variant.name))
    return dict(asdict(asked), variant=variant.name, used=used)


def take(stage, variant, workload, share, asked):
    """A sample that nobody disturbed, or the last of several."""
    requests = max(int(workload.requests * share), workload.connections // 4, 1)
    stage.load.open(stage.port(variant, workload), workload)
    asked.add(stage.load.run(max(requests // WARM, 1), workload.rate))
    for _ in range(TRIES):
        sample = measure(stage, variant, workload, requests)
        asked.add(sample.counts)
        if not sample.disturbed:
            break
    stage.load.close()
    return sample


def measure(stage, variant, workload, requests):
    before = clocks(stage, variant)
    counts = stage.load.run(requests, workload.rate)
    envoy, side, load, busy, busy_load = (after - then for after, then in zip(clocks(stage, variant), before))
    ours = (envoy, side + load) if stage.envoy_core != stage.load_core else (envoy + side + load,) * 2
    foreign = max(busy - ours[0], busy_load - ours[1], 0)
    answered = sum(number for name, number in counts.items() if name.startswith("status."))
    return Sample(0, 0, variant.name, workload.name, requests, envoy / 1000 / answered, side / 1000 / answered,
                  foreign / counts["wall"], foreign > max(FOREIGN_NANOS, FOREIGN_SHARE * counts["wall"]), counts)


def clocks(stage, variant):
    return (*stage.cpu(variant), stage.load.cpu(), busy_nanos(stage.envoy_core), busy_nanos(stage.load_core))
