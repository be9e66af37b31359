"""A thousand requests at once on a budget that is worth a hundred."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, replace

import books
import workload
from harness.config import BY_HEADER, TIERS
from harness.wait import DEADLINE_SECONDS
from stage import Stage

SIZE, WORTH = 1_000, 100
MAX_TOKENS = 50
PROMPT = 250
POLL_SECONDS = 0.01


@dataclass
class Crowd:
    """What became of one crowd: `final` are its requests' last answers, `outcomes` all of them."""

    tenant: str
    budget: int
    final: list
    outcomes: list

    def refusals(self):
        return Counter(outcome.told("reason") for outcome in self.final if outcome.status != 200)


def run():
    """(crowds, bursar's books, the witnesses' books, faults)"""
    requests = {"dear": dear_request(), "patient": request("patient", PROMPT)}
    given = {"dear": WORTH * (requests["dear"].prompt + MAX_TOKENS), "patient": WORTH * (PROMPT + MAX_TOKENS)}
    tenants = {tenant: {"budget": workload.budget_config(budget, "tokens")} for tenant, budget in given.items()}
    with Stage({"tenant": BY_HEADER, "tiers": TIERS, "tenants": tenants}) as stage:
        return asyncio.run(_run(stage, requests, given))


async def _run(stage, requests, given):
    await stage.bursar.connect(SIZE)
    dear = await at_once(stage, requests["dear"])
    final, tried = await patiently(stage, requests["patient"])
    outcomes = dear + tried
    tally = await stage.tally()
    bursar = books.of_bursar(stage.settled_metrics(outcomes))
    witnesses = books.of_witnesses(outcomes, tally)
    left = await books.ledger(stage, given)
    stage.close_clients()
    faults = books.wrong_answers(outcomes, tally) + books.differences(bursar, witnesses)
    faults += [f"ledger of {tenant}: {left[tenant]} left of {given[tenant]}" for tenant in given
               if left[tenant] != given[tenant] - witnesses.spent(tenant, "tokens")]
    crowds = [Crowd("dear", given["dear"], dear, dear), Crowd("patient", given["patient"], final, tried)]
    return crowds, bursar, witnesses, faults


def request(tenant, prompt, number=0, seconds=0.0):
    return workload.Request(id=f"{tenant}-{number}", at=0, tenant=tenant, prompt=prompt, output=2 * MAX_TOKENS,
                            max_tokens=MAX_TOKENS, seconds=seconds)


def dear_request():
    """It costs all that was reserved for it: a token for each byte of its body, and max_tokens."""
    size = len(workload.body(request("dear", PROMPT)))
    return request("dear", size)


def numbered(one, number):
    return replace(one, id=f"{one.tenant}-{number}")


async def at_once(stage, one):
    """Nobody is answered by the upstream before everybody was decided about."""
    body = workload.body(request(one.tenant, PROMPT))
    await stage.direct.get("/gate/shut")
    tasks = [asyncio.create_task(stage.bursar.send(numbered(one, number), body)) for number in range(SIZE)]
    await asyncio.wait_for(_decided(stage, tasks), DEADLINE_SECONDS)
    await stage.direct.get("/gate/open")
    return await asyncio.gather(*tasks)


async def _decided(stage, tasks):
    """Returns when each request stands at the upstream's gate or is answered."""
    while True:
        waiting = json.loads(await stage.direct.get("/waiting"))["waiting"]
        if waiting + sum(task.done() for task in tasks) == len(tasks):
            return
        await asyncio.sleep(POLL_SECONDS)


async def patiently(stage, one):
    """Who is told that the budget is held comes again when it was told to: (last answers, all answers)."""
    tries = []

    async def insist(number):
        for turn in range(SIZE):
            outcome = await stage.bursar.send(numbered(one, f"{number}.{turn}"))
            tries.append(outcome)
            if outcome.told("reason") != "budget_held":
                return outcome
            await asyncio.sleep(int(outcome.headers["retry-after-ms"]) / 1_000)
        raise AssertionError(f"request {number} is still told to come again")

    final = await asyncio.gather(*(insist(number) for number in range(SIZE)))
    return final, tries
