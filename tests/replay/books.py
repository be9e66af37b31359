"""What was spent, by three who know: bursar's metrics, bursar's ledger, and the upstream that was paid."""

import re
from collections import Counter
from dataclasses import dataclass, field

import workload


@dataclass
class Books:
    """Tokens, money and decisions of one replay, from one who knows. A Counter takes what is missing for 0."""

    tokens: Counter = field(default_factory=Counter)      # (tenant, model, kind)
    spend: Counter = field(default_factory=Counter)       # (tenant, model): micros
    saved: Counter = field(default_factory=Counter)       # tenant: micros
    decisions: Counter = field(default_factory=Counter)   # (tenant, tier, decision)
    refusals: Counter = field(default_factory=Counter)    # (tenant, reason)
    settlements: Counter = field(default_factory=Counter)   # by what

    def of(self, what, tenant):
        return sum(value for key, value in getattr(self, what).items() if key == tenant or key[0] == tenant)

    def spent(self, tenant, unit):
        return self.of("tokens" if unit == "tokens" else "spend", tenant)


METRICS = {
    "tokens": ("bursar_tokens_total", ("tenant", "model", "kind")),
    "spend": ("bursar_spend_total", ("tenant", "model")),
    "saved": ("bursar_saved_total", ("tenant",)),
    "decisions": ("bursar_requests_total", ("tenant", "tier", "decision")),
    "refusals": ("bursar_throttled_total", ("tenant", "reason")),
    "settlements": ("bursar_settlements_total", ("by",)),
}


def of_bursar(metrics):
    """The books as bursar's metrics have them."""
    books = Books()
    for what, (name, labels) in METRICS.items():
        for (found, pairs), value in metrics.items():
            if found == name:
                values = tuple(dict(pairs).get(label) for label in labels)
                getattr(books, what)[values if len(values) > 1 else values[0]] += round(value)
    return books


def of_witnesses(outcomes, tally):
    """The books as the upstream (what it reported) and the clients (what they were told) have them."""
    books = Books()
    for outcome in outcomes:
        tenant = outcome.request.tenant
        books.decisions[tenant, outcome.told("tier"), outcome.told("decision")] += 1
        if outcome.status != 200:
            books.refusals[tenant, outcome.told("reason")] += 1
        for model, prompt, completion, _ in tally.get(outcome.request.id, ()):
            books.settlements["usage"] += 1
            paid = workload.micros(model, prompt, completion)
            books.tokens[tenant, model, "input"] += prompt
            books.tokens[tenant, model, "output"] += completion
            books.spend[tenant, model] += paid
            books.saved[tenant] += workload.micros(outcome.request.model, prompt, completion) - paid
    return books


def differences(bursar, witnesses):
    """What the two books do not agree on, as text."""
    found = []
    for what in METRICS:
        ours, theirs = getattr(bursar, what), getattr(witnesses, what)
        found += [f"{what} of {key}: bursar {ours[key]}, witnesses {theirs[key]}"
                  for key in sorted(ours.keys() | theirs.keys(), key=str) if ours[key] != theirs[key]]
    return found


def wrong_answers(outcomes, tally):
    """Answers that should not be: other statuses, and requests that reached the upstream twice, or though refused."""
    found = [f"request {outcome.request.id} was answered {outcome.status}"
             for outcome in outcomes if outcome.status not in (200, 429)]
    for outcome in outcomes:
        arrived, due = len(tally.get(outcome.request.id, ())), int(outcome.status == 200)
        if arrived != due:
            found.append(f"request {outcome.request.id}, answered {outcome.status}, reached the upstream {arrived} times")
    return found


# --- the ledger itself -------------------------------------------------------


async def ledger(stage, tenants):
    """{tenant: what its own record has left}, as a last request finds it that costs nothing."""
    left = {}
    for tenant in tenants:
        probe = workload.Request(id=f"probe-{tenant}", at=0, tenant=tenant, prompt=0, output=0, max_tokens=1, seconds=0)
        outcome = await stage.bursar.send(probe)
        logged = stage.envoy.logged(probe.id)["remaining"]
        # A tenant that has spent all is refused without a look at its request, and the log tells less then.
        left[tenant] = told_left(outcome) if logged is None else logged
    return left


def told_left(outcome):
    """What a refusal tells: `ratelimit: "budget";r=<left>`."""
    found = re.search(r'"budget";r=(\d+)', outcome.headers.get("ratelimit", ""))
    return int(found[1]) if found else None


def ledger_differences(left, given, books):
    found = []
    for tenant in workload.TENANTS:
        if tenant.name in left:
            due = max(0, given[tenant.name] - books.spent(tenant.name, tenant.unit))
            if left[tenant.name] != due:
                found.append(f"ledger of {tenant.name}: {left[tenant.name]} left, should be {due}")
    return found
