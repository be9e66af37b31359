"""One tenant whose requests come as fast as all workers can take them, so that they race for its record."""

from dataclasses import dataclass

import tables
from harness import metrics
from harness.config import BY_HEADER, TIERS, budget
from load import COST, KNOWN, Load

WORKERS = (1, 2, 4)
MANY = 100   # tenants, to compare with
GIVEN = 1_000_000_000   # tokens: nobody is refused


@dataclass
class Result:
    workers: int
    tenants: int
    requests: int     # all of them served
    seconds: float
    conflicts: int    # compare-and-swap steps lost, and tried again
    unmetered: int    # requests let through since every try was lost
    used: int         # tokens, as the upstream reported them
    charged: int      # by bursar's metrics
    spent: int        # by bursar's ledger

    def lost(self):
        """Whether an update was."""
        return not self.used == self.charged == self.spent


def run_all(count):
    """One tenant with each number of workers, and for comparison many tenants."""
    runs = [(workers, 1) for workers in WORKERS] + [(WORKERS[-1], MANY)]
    results = []
    for number, (workers, tenants) in enumerate(runs, 1):
        tables.print_step(number, len(runs), f"workers: {workers}, tenants: {tenants}")
        results.append(run(count, workers, tenants))
    return results


def run(count, workers, tenants=1):
    names = [f"tenant-{number}" for number in range(tenants)]
    config = {"tenant": BY_HEADER, "tiers": TIERS, "tenants": {name: {"budget": budget(GIVEN)} for name in names}}
    with Load(config, workers) as load:
        before = {name: load.ask_until_known(name)[1] for name in names}
        early = COST * (KNOWN - 1) * tenants
        seconds, unmetered = load.send([names[number % tenants] for number in range(count)])
        used = COST * (count + tenants)
        charged = load.charged(used + early) - early
        spent = sum(before[name] - load.ask(name)[1] for name in names)
        conflicts = metrics.total(load.envoy.metrics(), "bursar_state_conflicts_total")
    return Result(workers, tenants, count, seconds, round(conflicts), unmetered, used, charged, spent)


def print_results(results):
    head = ["workers", "tenants", "requests", "a second", "conflicts", "a request", "unmetered", "tokens used",
            "by metrics", "by ledger"]
    rows = [[str(each.workers), str(each.tenants), f"{each.requests:,}", f"{each.requests / each.seconds:,.0f}",
             f"{each.conflicts:,}", f"{each.conflicts / each.requests:.4f}", str(each.unmetered), f"{each.used:,}",
             f"{each.charged:,}", f"{each.spent:,}"] for each in results]
    tables.print_table(head, rows)
    print("""
conflicts: compare-and-swap steps that another worker was faster in, and that were tried again (twice a request: reserve, settle).
unmetered: let through since each of 16 tries was lost (`failure_mode: allow`).
""")
