"""A provider that is out of quota: what applications see of it through the provider's own SDK, without bursar, with it, and where
bursar shares out what the provider says is left.

The top model's quota is a part of what is asked of it, as a region's is at noon; the models of the lower tiers have enough. A trace's
requests come through two proxies that know nothing of each other, each of two workers, by the `openai` SDK at its defaults.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace

import openai

import tables
import workload
from client import Client
from harness import envoy as harness
from harness.config import BY_HEADER, TIERS
from stage import HERE, WORKERS, listener_ports, prepare

PROXIES = 2
CRITICAL = ("critical-1", "critical-2")
SHARES = {"critical-1": 1, "critical-2": 1, "standard-1": 2, "standard-2": 2, "batch-1": 4, "batch-2": 4}   # of the requests
QUOTA = 0.5       # of what is asked of the top model
CONTENT = len(b'{"model":"","max_tokens":,"messages":[{"role":"user","content":""}]}')
RESERVED = {"critical": 0.4, "standard": 0.2}


@dataclass(frozen=True)
class Outcome:
    """What became of one call of an application."""

    request: workload.Request
    status: int       # 200, or the error's
    tier: str | None
    reason: str | None
    started: float    # by time.monotonic
    seconds: float


@dataclass
class Result:
    name: str
    outcomes: list
    quotas: dict      # by model: served, refused, healed

    def of(self, tenants):
        return [outcome for outcome in self.outcomes if outcome.request.tenant in tenants]

    def limited(self, tenants=SHARES):
        return sum(outcome.status == 429 for outcome in self.of(tenants))

    def healed(self):
        """How long after the top model's quota was there again, and somebody called, it was used: the longest, in seconds."""
        calls = sorted(outcome.started for outcome in self.outcomes)
        next_call = {since: min((at for at in calls if at >= since), default=until)
                     for since, until in self.quotas[workload.MODEL]["healed"]}
        return max((until - next_call[since] for since, until in self.quotas[workload.MODEL]["healed"]), default=0.0)

    def p95(self, tenants):
        return tables.percentile([outcome.seconds for outcome in self.of(tenants) if outcome.status == 200], 0.95)


# --- who sends what ----------------------------------------------------------


def requests(rows, seconds):
    """The trace, spread over the tenants; the same each time."""
    names = [name for name, share in SHARES.items() for _ in range(share)]
    spread = workload.spread(rows, seconds)
    return [replace(each, tenant=names[number % len(names)], include_usage=True) for number, each in enumerate(spread)]


def quotas(schedule, seconds, minute):
    """{model: tokens a minute}"""
    asked = sum(each.prompt + each.max_tokens for each in schedule) * minute / seconds
    return {TIERS[0]["model"]: round(QUOTA * asked), **{tier["model"]: round(2 * asked) for tier in TIERS[1:]}}


def plugin_config(learned):
    capacity = {"capacity": {"from": "upstream", "reserved": RESERVED}} if learned else {}
    plans = {name: {"priority": name} for name in ("critical", "standard", "best_effort")}
    kinds = {"critical": "critical", "standard": "standard", "batch": "best_effort"}
    return {"tenant": BY_HEADER, "tiers": [dict(TIERS[0], **capacity), *TIERS[1:]], "plans": plans,
            "tenants": {name: {"plan": kinds[name.rsplit("-", 1)[0]]} for name in SHARES}}


# --- runs --------------------------------------------------------------------


def run(rows, seconds, minute):
    schedule = requests(rows, seconds)
    limits = [str(minute), *(f"{model}={tokens}" for model, tokens in quotas(schedule, seconds, minute).items())]
    critical = [each for each in schedule if each.tenant in CRITICAL]
    runs = [
        ("critical tenants alone", "llm", False, critical),
        ("without bursar", "plain", False, schedule),
        ("with bursar", "llm", False, schedule),
        ("with bursar and learned capacity", "llm", True, schedule),
    ]
    for number, (name, listener, learned, sent) in enumerate(runs):
        tables.print_step(number + 1, len(runs), name)
        with Proxies(plugin_config(learned), limits, listener) as proxies:
            outcomes = asyncio.run(call_all(proxies.ports, sent))
            yield Result(name, outcomes, proxies.quotas())


class Proxies:
    """Two Envoys before one upstream with quotas. `ports`: of the listener of each."""

    def __init__(self, config, limits, listener):
        self.config, self.limits, self.listener = config, limits, listener

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            process = subprocess.Popen([sys.executable, str(HERE / "quotas.py"), *self.limits],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.callback(stop, process)
            self.port = int(process.stdout.readline())
            self.ports = [self._start(stack) for _ in range(PROXIES)]
            self._stack = stack.pop_all()
        return self

    def _start(self, stack):
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bursar-replay-"))
        envoy = harness.Envoy(folder, harness.document(self.config, self.port, change=prepare), concurrency=WORKERS)
        stack.callback(envoy.kill)
        envoy.wait_ready()
        return listener_ports(envoy)[self.listener]

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def quotas(self):
        return json.loads(asyncio.run(get(self.port, "/quotas")))


def stop(process):
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


async def get(port, path):
    client = Client(port)
    try:
        return await client.get(path)
    finally:
        client.close()


async def call_all(ports, schedule):
    """Calls each at its time, by the proxies in turn."""
    loop = asyncio.get_running_loop()
    clients = [openai.AsyncOpenAI(api_key="test", base_url=f"http://127.0.0.1:{port}/v1") for port in ports]
    start, tasks = loop.time() + 0.1, []
    for number, request in enumerate(schedule):
        await asyncio.sleep(max(0, start + request.at - loop.time()))
        tasks.append(loop.create_task(call(clients[number % len(clients)], request)))
    outcomes = await asyncio.gather(*tasks)
    for client in clients:
        await client.close()
    return outcomes


async def call(client, request):
    """As an application does that reads the whole answer."""
    options = {"stream": True, "stream_options": {"include_usage": True}} if request.stream else {}
    headers = {"x-tenant-id": request.tenant, "x-test-id": request.id,
               "x-replay": f"{request.prompt},{request.output},{request.seconds:.6f}"}
    content = workload.text(request.bytes_per_token * request.prompt - CONTENT)
    started = time.monotonic()
    try:
        raw = await client.chat.completions.with_raw_response.create(
            model=request.model, max_tokens=request.max_tokens, messages=[{"role": "user", "content": content}],
            extra_headers=headers, **options)
        answer = raw.parse()
        if request.stream:
            async for _ in answer:
                pass
        status, told = 200, raw.headers
    except openai.APIStatusError as error:
        status, told = error.status_code, error.response.headers
    return Outcome(request, status, told.get("x-bursar-tier"), told.get("x-bursar-reason"), started,
                   time.monotonic() - started)


# --- what is printed ---------------------------------------------------------

HEAD = ["run", "calls", *(tier["name"] for tier in TIERS), "429 in the application", "of them critical", "critical below the top",
        "refused by the provider", "critical p95 s", "all p95 s", "healed, not used: s"]


def print_results(results):
    tables.print_table(HEAD, [row(result) for result in results])


def row(result):
    served = [outcome for outcome in result.outcomes if outcome.status == 200]
    tiers = [sum((outcome.tier or TIERS[0]["name"]) == tier["name"] for outcome in served) for tier in TIERS]
    lower = sum(outcome.tier not in (None, TIERS[0]["name"]) for outcome in result.of(CRITICAL))
    seconds = [result.p95(CRITICAL), result.p95(SHARES), result.healed()]
    counts = [len(result.outcomes), *tiers, result.limited(), result.limited(CRITICAL), lower,
              sum(quota["refused"] for quota in result.quotas.values())]
    return [result.name, *(f"{count:,}" for count in counts), *("-" if each is None else f"{each:.2f}" for each in seconds)]


def missed(results):
    """Which targets were not met, as text."""
    alone, without, pressed, learned = results
    found = [f"{result.name}: {outcome.request.id} was answered {outcome.status}" for result in results
             for outcome in result.outcomes if outcome.status not in (200, 429)]
    for result in (pressed, learned):
        if 20 * result.limited() > without.limited():
            found.append(f"{result.name}: {result.limited()} calls failed with 429, without bursar {without.limited()}")
        if result.limited(CRITICAL):
            found.append(f"{result.name}: {result.limited(CRITICAL)} calls of critical tenants failed with 429")
        if result.p95(CRITICAL) > 1.2 * alone.p95(CRITICAL):
            found.append(f"{result.name}: critical p95 is {result.p95(CRITICAL):.2f} s, alone {alone.p95(CRITICAL):.2f} s")
        if result.healed() > 2:
            found.append(f"{result.name}: the top model stood unused for {result.healed():.2f} s after its quota was there again "
                         "and somebody called")
    return found
