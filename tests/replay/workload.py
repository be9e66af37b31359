"""Who sends what, when, and on which budget: a trace spread over twenty tenants. The same every time."""

import csv
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime

from harness.config import BY_HEADER, TIERS

MODEL = TIERS[0]["model"]   # what everybody asks for
MAX_TOKENS = (256, 512, 1024)
NOISY = "noisy"
STRETCH, BURST = 30, 10   # of each thirty requests, ten are the noisy tenant's, all at once
SECONDS_PER_TOKEN = 0.02   # how fast the LLM writes, before time is compressed
SEED = 20
TWIN = "plain-"   # begins the id of a twin


@dataclass(frozen=True)
class Row:
    """One request of a trace."""

    at: float   # seconds since the first
    prompt: int
    output: int


@dataclass(frozen=True)
class Request:
    """One request of the replay."""

    id: str
    at: float
    tenant: str
    prompt: int          # tokens that the upstream reports
    output: int          # tokens that the upstream would like to answer
    max_tokens: int | None
    seconds: float       # that the upstream takes
    stream: bool = False
    include_usage: bool = False
    bytes_per_token: int = 4   # of the prompt
    model: str = MODEL   # that is asked for

    @property
    def completion(self):
        """Tokens that the upstream does answer."""
        return self.output if self.max_tokens is None else min(self.output, self.max_tokens)


@dataclass(frozen=True)
class Tenant:
    """`budget` is a multiple of what the tenant's requests cost at the top tier, `rate` of its mean tokens a second."""

    name: str
    budget: float | None
    unit: str = "tokens"
    weight: int = 3
    rate: float | None = None
    more: dict = field(default_factory=dict)


def family(name, size, budget, weight=3):
    """Tenants alike, every other one with its budget in dollars."""
    return [Tenant(f"{name}-{n + 1}", budget, ("tokens", "usd")[n % 2], weight) for n in range(size)]


TENANTS = [
    Tenant(NOISY, 0.6, weight=0, rate=0.7),
    *family("quiet", 4, 20, weight=1),
    *family("roomy", 4, 3),
    *family("steady", 4, 1.5),
    *family("tight", 4, 0.7),
    Tenant("loyal", 0.7, more={"never_downgrade": True}),
    Tenant("overdrawn", 0.6, more={"on_exhausted": {"degrade": {"overdraft": 0.2}}}),
    Tenant("paced", None, rate=0.8),
]
QUIET = [tenant.name for tenant in TENANTS if tenant.name.startswith("quiet")]


# --- traces ------------------------------------------------------------------


def read_trace(path, limit=None):
    """The rows of a CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens."""
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))[:limit]
    # Timestamps have seven decimals; Python reads six.
    times = [datetime.fromisoformat(line["TIMESTAMP"][:26]) for line in lines]
    rows = [Row((time - times[0]).total_seconds(), int(line["ContextTokens"]), int(line["GeneratedTokens"]))
            for time, line in zip(times, lines)]
    return sorted(rows, key=lambda row: row.at)


def synthetic_trace(count):
    """A small trace of our own: chats with long tails, five a second on average."""
    draw = random.Random(SEED)
    rows, at = [], 0.0
    for _ in range(count):
        rows.append(Row(at, min(8_000, round(draw.lognormvariate(5.5, 1))), min(1_500, round(draw.lognormvariate(4, 1)))))
        at += draw.expovariate(5)
    return rows


# --- requests ----------------------------------------------------------------


def spread(rows, seconds, with_max_tokens=True, bytes_per_token=4):
    """The trace as requests of all tenants, compressed so that the last one is sent after so many seconds."""
    speed = max(rows[-1].at, 1e-9) / seconds
    draw = random.Random(SEED)
    others = [tenant for tenant in TENANTS if tenant.name != NOISY]
    names, weights = [tenant.name for tenant in others], [tenant.weight for tenant in others]
    requests = []
    for number, row in enumerate(rows):
        bursts = number % STRETCH < BURST
        sent = rows[number - number % STRETCH] if bursts else row
        # Drawn in either case, so that tenants get the same requests.
        most = draw.choice(MAX_TOKENS)
        requests.append(Request(
            id=str(number), at=sent.at / speed, tenant=NOISY if bursts else draw.choices(names, weights)[0],
            prompt=row.prompt, output=row.output, max_tokens=most if with_max_tokens else None,
            seconds=row.output * SECONDS_PER_TOKEN / speed, stream=draw.random() < 0.5,
            include_usage=draw.random() < 0.5, bytes_per_token=bytes_per_token))
    return sorted(requests, key=lambda request: request.at)


def body(request):
    """As many bytes for each prompt token as the request says, and for the shortest prompts more: never less than one."""
    options = f'"max_tokens":{request.max_tokens},' if request.max_tokens is not None else ""
    if request.stream:
        options += '"stream":true,'
        options += '"stream_options":{"include_usage":true},' if request.include_usage else ""
    before = f'{{"model":"{request.model}",{options}"messages":[{{"role":"user","content":"'
    after = '"}]}'
    return (before + text(request.bytes_per_token * request.prompt - len(before) - len(after)) + after).encode()


WORDS = "the quick brown fox jumps over the lazy dog and asks what that did cost " * 1024


def text(size):
    return (WORDS * (max(size, 0) // len(WORDS) + 1))[:max(size, 0)]


def twin(request):
    """The same request for the listener without bursar."""
    return replace(request, id=TWIN + request.id)


# --- budgets -----------------------------------------------------------------


PRICES = {tier["model"]: {kind: round(price * 1_000_000) for kind, price in tier["price"].items()} for tier in TIERS}


def micros(model, prompt, completion):
    """What one request costs in millionths of a dollar, rounded up."""
    price = PRICES[model]
    return -(-(prompt * price["input"] + completion * price["output"]) // 1_000_000)


def cost(unit, model, prompt, completion):
    return prompt + completion if unit == "tokens" else micros(model, prompt, completion)


def demands(requests):
    """{(tenant, unit): what all of its requests cost at the top tier}"""
    demand = Counter()
    for request in requests:
        for unit in ("tokens", "usd"):
            demand[request.tenant, unit] += cost(unit, MODEL, request.prompt, request.completion)
    return demand


def budgets(requests):
    """{tenant: its budget in tokens or micros} of those who have one"""
    demand = demands(requests)
    return {tenant.name: round(tenant.budget * demand[tenant.name, tenant.unit])
            for tenant in TENANTS if tenant.budget is not None}


def limit(tenant, budget):
    """What may be spent: the budget and its overdraft."""
    degrade = tenant.more.get("on_exhausted", {}).get("degrade", {})
    return budget + round(degrade.get("overdraft", 0) * 1_000_000) * budget // 1_000_000


def plugin_config(requests, seconds):
    """Budgets without a window, so that no midnight comes between."""
    demand, given = demands(requests), budgets(requests)
    tenants = {}
    for tenant in TENANTS:
        config = dict(tenant.more)
        if tenant.budget is not None:
            config["budget"] = budget_config(given[tenant.name], tenant.unit)
        if tenant.rate is not None:
            rate = max(1, round(tenant.rate * demand[tenant.name, "tokens"] / seconds))
            config["bucket"] = {"tokens_per_window": rate, "window": "1s", "burst": 2 * rate}
        tenants[tenant.name] = config
    return {"tenant": BY_HEADER, "tiers": TIERS, "tenants": tenants}


def budget_config(amount, unit):
    return {"initial_budget": amount if unit == "tokens" else amount / 1_000_000, "unit": unit, "window": "none"}
