"""One replay: a fresh Envoy, all requests, and the books afterwards."""

import asyncio
from dataclasses import dataclass

import books
import workload
from client import replay
from stage import Stage

TWIN_EVERY = 10   # every tenth request is sent a second time, past bursar
CONNECTIONS = 32   # opened ahead; more are opened when these are busy
LEAST_OUTPUT = 128   # what bursar reserves at the least where a request names no maximum: it learns how long answers are


@dataclass
class Result:
    outcomes: list
    twins: list
    late: list      # seconds that each request was sent after its time
    tally: dict     # what the upstream answered, by request
    given: dict     # budgets by tenant
    left: dict      # what the ledger has left of them
    bursar: books.Books
    witnesses: books.Books

    def faults(self):
        """Why the books cannot be trusted."""
        return (books.wrong_answers(self.outcomes + self.twins, self.tally)
                + books.differences(self.bursar, self.witnesses)
                + books.ledger_differences(self.left, self.given, self.witnesses))

    def overspend(self, tenant):
        """What the upstream was paid beyond the tenant's budget, in the budget's unit."""
        if tenant.name not in self.given:
            return 0
        return max(0, self.witnesses.spent(tenant.name, tenant.unit) - workload.limit(tenant, self.given[tenant.name]))

    def missed(self, tenant):
        """What the tenant may overspend at the most: how much more its requests cost than was reserved for them.
        Nothing where they named a maximum."""
        unlimited = [outcome for outcome in self.of(tenant.name) if outcome.request.max_tokens is None]
        return sum(max(0, self._shortfall(tenant.unit, outcome)) for outcome in unlimited)

    def _shortfall(self, unit, outcome):
        request = outcome.request
        return sum(workload.cost(unit, model, prompt, completion)
                   - workload.cost(unit, model, len(workload.body(request)), LEAST_OUTPUT)
                   for model, prompt, completion, _ in self.tally.get(request.id, ()))

    def of(self, tenant):
        return [outcome for outcome in self.outcomes if outcome.request.tenant == tenant]

    def added(self, outcomes):
        """Seconds that each served request took, less the upstream's own."""
        return [self._added(outcome) for outcome in outcomes if self._served(outcome)]

    def added_by_bursar(self):
        """How much longer each request took than its twin did past bursar."""
        served = {outcome.request.id: outcome for outcome in self.outcomes if self._served(outcome)}
        pairs = [(served.get(twin.request.id.removeprefix(workload.TWIN)), twin) for twin in self.twins]
        return [self._added(outcome) - self._added(twin) for outcome, twin in pairs if outcome]

    def _served(self, outcome):
        return outcome.status == 200 and outcome.request.id in self.tally

    def _added(self, outcome):
        return outcome.seconds - self.tally[outcome.request.id][0][3]


def run(requests, seconds, hold_headers, without=None):
    """Replays the requests, without those of one tenant if so wanted; the budgets are the same either way."""
    with Stage(workload.plugin_config(requests, seconds), hold_headers) as stage:
        sent = [request for request in requests if request.tenant != without]
        return asyncio.run(_run(stage, sent, workload.budgets(requests)))


async def _run(stage, requests, given):
    schedule = with_twins(stage, requests)
    await stage.bursar.connect(CONNECTIONS)
    await stage.plain.connect(CONNECTIONS)
    answered, late = await replay(schedule)
    outcomes = [outcome for (client, _), outcome in zip(schedule, answered) if client is stage.bursar]
    twins = [outcome for (client, _), outcome in zip(schedule, answered) if client is stage.plain]
    tally = await stage.tally()
    bursar = books.of_bursar(stage.settled_metrics(outcomes))
    left = await books.ledger(stage, given)
    stage.close_clients()
    return Result(outcomes, twins, late, tally, given, left, bursar, books.of_witnesses(outcomes, tally))


def with_twins(stage, requests):
    """The schedule: each request through bursar, and now and then its twin past it, in turn before and after it."""
    schedule = []
    for number, request in enumerate(requests):
        sent = [(stage.bursar, request)]
        if number % TWIN_EVERY == 0:
            sent.append((stage.plain, workload.twin(request)))
        schedule += sent if number % (2 * TWIN_EVERY) else reversed(sent)
    return schedule
