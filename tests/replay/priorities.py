"""A flood on uneven budgets: tenants whose budgets run low fall back to the compact tier, all at once and again and again, and
nobody else may notice.

The LLM answers few requests of the compact model at a time, as a real one does: what comes beyond that waits in line, whoever
sent it. So the flood's requests and everybody else's wait for each other, unless the compact tier has a capacity: then what the LLM
cannot take soon is not sent to it, and what is left belongs to those who matter more.
"""

import asyncio
from dataclasses import dataclass

import books
import tables
import workload
from client import replay
from harness.config import BY_HEADER, TIERS
from stage import Stage

COMPACT = TIERS[-1]["model"]
PROMPT, OUTPUT = 400, 100
TOKENS = PROMPT + OUTPUT
SECONDS_EACH = 0.05   # that the LLM takes for a request
PLACES = 2   # requests of the compact model that it answers at a time: forty a second
BURSTS_EACH_SECOND, BURST = 0.5, 40   # of each tenant of the flood


@dataclass(frozen=True)
class Tenant:
    """`budget` is a multiple of what the tenant's requests cost at the tier that it asks for; `rate`: requests a second,
    evenly, or in bursts where there is none."""

    name: str
    plan: str
    budget: float
    unit: str = "usd"
    model: str = workload.MODEL
    rate: float | None = None


# The flood's budgets suffice if it falls back in time: at the top tier they are worth a part of its requests.
TENANTS = [
    Tenant("critical", "critical", 3, model=COMPACT, rate=8),
    Tenant("critical-top", "critical", 3, rate=2),
    Tenant("standard", "standard", 3, "tokens", COMPACT, rate=8),
    Tenant("standard-top", "standard", 2.5, rate=2),
    Tenant("flood-1", "best_effort", 0.5),
    Tenant("flood-2", "best_effort", 0.4),
    Tenant("flood-3", "best_effort", 0.3),
    Tenant("flood-4", "best_effort", 0.2),
]
FLOOD = [tenant for tenant in TENANTS if tenant.rate is None]
OTHERS = [tenant for tenant in TENANTS if tenant.rate is not None]
PLANS = {
    "critical": {"priority": "critical"},
    "standard": {"priority": "standard"},
    "best_effort": {"priority": "best_effort", "below": {"standard": 0.9, "compact": 0.8}},
}
# Nine tenths of what the LLM answers in a second, and a burst that it answers in a fifth of one.
CAPACITY = {
    "tokens_per_window": round(0.9 * PLACES / SECONDS_EACH * TOKENS), "window": "1s", "burst": 8 * TOKENS,
    "reserved": {"critical": 0.3, "standard": 0.3},
}


@dataclass
class Result:
    """One run."""

    name: str
    outcomes: list
    given: dict      # budgets by tenant, in its unit
    bursar: books.Books
    witnesses: books.Books
    faults: list

    def of(self, tenant):
        return [outcome for outcome in self.outcomes if outcome.request.tenant == tenant.name]

    def served(self, tenant, tier=None):
        return [outcome for outcome in self.of(tenant)
                if outcome.status == 200 and tier in (None, outcome.told("tier"))]

    def refused(self, tenant, *reasons):
        return [outcome for outcome in self.of(tenant)
                if outcome.status != 200 and (not reasons or outcome.told("reason") in reasons)]

    def overspend(self, tenant):
        return max(0, self.witnesses.spent(tenant.name, tenant.unit) - self.given[tenant.name])


# --- who sends what ----------------------------------------------------------


def requests(seconds):
    """Of all tenants, by time."""
    return sorted((each for tenant in TENANTS for each in sent_by(tenant, seconds)), key=lambda each: each.at)


def sent_by(tenant, seconds):
    if tenant.rate is None:
        # One tenant's burst after the other's.
        offset = FLOOD.index(tenant) / len(FLOOD) / BURSTS_EACH_SECOND
        rounds = max(1, round(seconds * BURSTS_EACH_SECOND))
        times = [offset + number / BURSTS_EACH_SECOND for number in range(rounds) for _ in range(BURST)]
    else:
        times = [number / tenant.rate for number in range(round(tenant.rate * seconds))]
    return [workload.Request(id=f"{tenant.name}-{number}", at=at, tenant=tenant.name, prompt=PROMPT, output=OUTPUT,
                             max_tokens=OUTPUT, seconds=SECONDS_EACH, model=tenant.model)
            for number, at in enumerate(times)]


def budgets(schedule):
    """{tenant: its budget in tokens or micros}"""
    count = {tenant.name: sum(each.tenant == tenant.name for each in schedule) for tenant in TENANTS}
    return {tenant.name: round(tenant.budget * count[tenant.name] * workload.cost(tenant.unit, tenant.model, PROMPT, OUTPUT))
            for tenant in TENANTS}


def plugin_config(given, capacity=None):
    compact = dict(TIERS[-1], capacity=capacity) if capacity else TIERS[-1]
    tenants = {tenant.name: {"plan": tenant.plan, "budget": workload.budget_config(given[tenant.name], tenant.unit)}
               for tenant in TENANTS}
    return {"tenant": BY_HEADER, "tiers": [*TIERS[:-1], compact], "plans": PLANS, "tenants": tenants}


# --- runs --------------------------------------------------------------------


def run(seconds):
    """The runs that are compared: without the flood, with it, and with a capacity that it has to share."""
    schedule = requests(seconds)
    given = budgets(schedule)
    names = {tenant.name for tenant in OTHERS}
    alone = [each for each in schedule if each.tenant in names]
    config = plugin_config(given)
    return [
        play("without the flood", config, alone, given),
        play("with the flood", config, schedule, given),
        play("with the flood, and a capacity of the compact tier", plugin_config(given, CAPACITY), schedule, given),
    ]


def play(name, config, schedule, given):
    with Stage(config, places={COMPACT: PLACES}) as stage:
        return asyncio.run(_play(stage, name, schedule, given))


async def _play(stage, name, schedule, given):
    await stage.bursar.connect(BURST)
    outcomes, _ = await replay([(stage.bursar, each) for each in schedule])
    tally = await stage.tally()
    bursar = books.of_bursar(stage.settled_metrics(outcomes))
    stage.close_clients()
    witnesses = books.of_witnesses(outcomes, tally)
    faults = books.wrong_answers(outcomes, tally) + books.differences(bursar, witnesses)
    return Result(name, outcomes, given, bursar, witnesses, faults)


def unkept(result):
    """What was promised and not kept, as text: others than the flood are served as they ask, and the flood falls back before its
    budgets are spent."""
    found = [f"{tenant.name}: {len(result.of(tenant))} asked, {len(as_asked(result, tenant))} served as asked"
             for tenant in OTHERS if len(as_asked(result, tenant)) < len(result.of(tenant))]
    found += [f"{tenant.name} was refused by its own budget" for tenant in FLOOD if result.refused(tenant, "budget_held", "budget_exhausted")]
    return found + [f"{tenant.name} overspent" for tenant in TENANTS if result.overspend(tenant)]


def as_asked(result, tenant):
    return [outcome for outcome in result.served(tenant) if outcome.told("decision") == "admit"]


# --- what is printed ---------------------------------------------------------

HEAD = ["tenant", "budget", "asked", *tables.ADMISSIONS, "refused: budget", "refused: capacity", "spend", "p50 ms", "p95 ms"]


def print_result(result):
    print(f"{result.name}:\n")
    tables.print_table(HEAD, [row(result, tenant) for tenant in TENANTS if result.of(tenant)])
    print()


def row(result, tenant):
    counts = [len(result.of(tenant)), *(len(result.served(tenant, tier)) for tier in tables.ADMISSIONS),
              len(result.refused(tenant, "budget_held", "budget_exhausted")), len(result.refused(tenant, "tier_capacity"))]
    seconds = [outcome.seconds for outcome in result.served(tenant)]
    return [tenant.name, tables.amount(result.given[tenant.name], tenant.unit), *(f"{count:,}" for count in counts),
            tables.amount(result.witnesses.spent(tenant.name, tenant.unit), tenant.unit),
            *(tables.milliseconds(tables.percentile(seconds, part)) for part in (0.5, 0.95))]
