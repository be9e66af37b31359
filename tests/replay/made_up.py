"""Tenants that somebody makes up, where the configuration gives strangers a plan: what they cost, and whom."""

from dataclasses import dataclass

import tables
from harness.config import BY_HEADER, TIERS, budget
from harness.wait import until
from load import COST, KNOWN, Load

WORKERS = 2
ROUNDS = 5
ALONE = 500   # requests of the watched tenant in each round, while nobody else sends
PART = 5      # in each round configured tenants send a fifth of what made-up ones do, to compare with
WATCHED = "acme"
CONFIGURED = [f"tenant-{number}" for number in range(100)]
RECENT = [f"recent-{number}" for number in range(16)]   # strangers too, who ask before the flood and after each round
# Of a budget that never begins anew.
GAUGES = ["bursar_limit", "bursar_used", "bursar_held", "bursar_remaining", "bursar_budget_remaining"]
GIVEN = 1_000_000_000   # tokens: nobody is refused, so that each request costs all that it can
MOST_MEMORY = 16_000_000   # bytes that all made-up tenants together may cost


@dataclass
class Round:
    made_up: int   # ids so far
    memory: int    # bytes, of Envoy
    series: int    # of bursar in its metrics
    asked: list    # seconds of the watched tenant's requests: alone, beside configured tenants, beside made-up ones
    rates: list    # requests a second of these and those


def run(count):
    """(rounds, the first of which is before the flood, and faults)"""
    config = {"tenant": dict(BY_HEADER, unknown={"plan": "free"}), "tiers": TIERS,
              "plans": {"free": {"budget": budget(GIVEN)}},
              "tenants": {tenant: {"plan": "free"} for tenant in [WATCHED, *CONFIGURED]}}
    size = count // ROUNDS
    with Load(config, WORKERS) as load:
        watched, _ = send(load, known(size))   # so that what Envoy needs for any load is not counted
        more, _ = send(load, [WATCHED])
        for tenant in RECENT:
            load.ask_until_known(tenant)
        first = left(load)
        # Metrics are a second behind.
        load.charged(COST * (len(known(size)) + len(watched) + 1 + len(more) + len(RECENT) * (KNOWN + 1)))
        # So are gauges; on a busy machine they come one after the other.
        until(lambda: gauges(load) == len(config["tenants"]) * len(GAUGES), "the gauges of all configured tenants")
        rounds, faults = [Round(0, load.memory(), series(load), [[], [], []], [0, 0])], []
        for number in range(ROUNDS):
            tables.print_step(number + 1, ROUNDS, f"{size:,} ids more")
            rounds.append(one_round(load, number * size, size))
            now, due = left(load), {tenant: first[tenant] - (number + 1) * COST for tenant in RECENT}
            faults += [f"{tenant} has {now[tenant]} left, should have {due[tenant]}"
                       for tenant in RECENT if now[tenant] != due[tenant]]
        return rounds, faults + growth(rounds) + wrong_books(load, rounds)


def one_round(load, first, size):
    alone = [load.ask(WATCHED)[0] for _ in range(ALONE)]
    beside, by_known = send(load, known(size))
    flooded, by_made_up = send(load, [f"made-up-{number}" for number in range(first, first + size)])
    return Round(first + size, load.memory(), series(load), [alone, beside, flooded], [by_known, by_made_up])


def known(size):
    return [CONFIGURED[number % len(CONFIGURED)] for number in range(size // PART)]


def send(load, tenants):
    """(seconds of the watched tenant's requests meanwhile, requests a second)"""
    watched = []
    seconds, _ = load.send(tenants, lambda: watched.append(load.ask(WATCHED)[0]))
    return watched, len(tenants) / seconds


def left(load):
    return {tenant: load.ask(tenant)[1] for tenant in RECENT}


def series(load):
    return sum(name.startswith("bursar_") for name, _ in load.envoy.metrics())


def gauges(load):
    return sum(name in GAUGES for name, _ in load.envoy.metrics())


def growth(rounds):
    grown = rounds[-1].memory - rounds[0].memory
    return ([f"memory grew by {grown:,} bytes"] * (grown > MOST_MEMORY)
            + [f"bursar had {rounds[0].series} series and has {rounds[-1].series}"] * (rounds[-1].series > rounds[0].series))


def wrong_books(load, rounds):
    """Whether each made-up tenant's tokens are in the metrics, once."""
    due = COST * (rounds[-1].made_up + len(RECENT) * (KNOWN + ROUNDS + 1))
    charged = load.charged(due, tenant="unconfigured")
    return [f"made-up tenants were charged {charged:,} tokens, should have been {due:,}"] * (charged != due)


def print_rounds(rounds):
    head = ["made-up ids", "memory MB", "series", "p50: alone", "beside", "flooded", "p95: alone", "beside", "flooded",
            "sent/s: beside", "flooded"]
    rows = [[f"{each.made_up:,}", f"{each.memory / 1e6:.1f}", f"{each.series:,}"]
            + [tables.milliseconds(tables.percentile(asked, part)) for part in (0.5, 0.95) for asked in each.asked]
            + [f"{rate:,.0f}" for rate in each.rates] for each in rounds]
    tables.print_table(head, rows)
    print(f"""
memory: resident, of the Envoy with bursar. series: bursar's in its metrics.
p50, p95: milliseconds of {WATCHED}'s requests, one after the other: alone, beside as many requests of {len(CONFIGURED)} configured tenants as
the machine can take, and beside as many of tenants that are made up, each id once. sent/s: how many of these were served a second.
""")
