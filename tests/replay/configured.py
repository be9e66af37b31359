"""How long a configuration with many tenants takes to load, and how much memory."""

import tables
from harness.config import BY_HEADER, TIERS, budget
from load import Load

TENANTS = (10, 1_000, 100_000)
WORKERS = 2
ASKED = 500   # requests, one after the other


def run():
    """[(tenants, seconds until Envoy was ready, its memory in bytes, seconds of requests)]"""
    rows = []
    for number, count in enumerate(TENANTS, 1):
        tables.print_step(number, len(TENANTS), f"{count:,} tenants")
        tenants = {f"tenant-{number:06}": {"plan": "gold"} for number in range(count)}
        config = {"tenant": BY_HEADER, "tiers": TIERS, "plans": {"gold": {"budget": budget(1_000_000_000)}},
                  "tenants": tenants}
        with Load(config, WORKERS) as load:
            asked = [load.ask(f"tenant-{number % count:06}")[0] for number in range(ASKED)]
            rows.append((count, load.ready, load.memory(), asked))
    return rows


def print_rows(rows):
    head = ["configured tenants", "ready after s", "memory MB", "a request ms (p50)"]
    tables.print_table(head, [[f"{count:,}", f"{seconds:.1f}", f"{memory / 1e6:.1f}",
                               tables.milliseconds(tables.percentile(asked, 0.5))]
                              for count, seconds, memory, asked in rows])
