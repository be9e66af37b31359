"""What is printed."""

import sys

import workload
from play import TWIN_EVERY
from workload import TENANTS, TIERS

ADMISSIONS = [tier["name"] for tier in TIERS]
REASONS = {"bucket_empty": "bucket", "request_exceeds_burst": "burst", "budget_held": "held", "budget_exhausted": "spent"}


def percentile(values, part):
    """The nearest rank; None of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else None


def milliseconds(seconds):
    return "-" if seconds is None else f"{seconds * 1_000:.2f}"


def dollars(micros):
    return f"{micros / 1_000_000:.6f}"


def amount(value, unit):
    return f"{value:,}" if unit == "tokens" else f"${dollars(value)}"


def print_table(head, rows):
    """The first column to the left, the others to the right; a row `None` is a line."""
    widths = [max(len(row[n]) for row in [head] + rows if row) for n in range(len(head))]
    for row in [head, None] + rows:
        cells = row or ["-" * width for width in widths]
        print("  ".join([cells[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:])]))


def print_step(number, count, what):
    """A line of progress, beside the report."""
    print(f"{number} of {count}: {what}", file=sys.stderr, flush=True)


# --- the replay --------------------------------------------------------------


def print_replay(result):
    head = ["tenant", "budget", "asked", *ADMISSIONS, *REASONS.values(), "tokens", "spend $", "overspend", "saved $",
            "p50 ms", "p95 ms"]
    rows = [tenant_row(result, tenant) for tenant in TENANTS]
    print_table(head, rows + [None, total_row(result)])
    plain, more = result.added(result.twins), result.added_by_bursar()
    print(f"""
asked, admitted by tier, throttled by reason (bucket empty, larger than the burst, budget held, budget spent), tokens, spend, saved: bursar's metrics.
overspend: what the upstream was paid beyond the budget and its overdraft, in the budget's unit.
p50, p95: milliseconds of a served request, whole, less the upstream's own (which its process measured): client, Envoy and bursar.
Every {TWIN_EVERY}th request was sent a second time through the same Envoy without bursar: p50 {milliseconds(percentile(plain, 0.5))}, p95 {milliseconds(percentile(plain, 0.95))}; \
of each such pair, the one through bursar took longer by {milliseconds(percentile(more, 0.5))} ms (p50).
Requests were sent {milliseconds(percentile(result.late, 0.95))} ms after their time (p95).
""")


def tenant_row(result, tenant):
    books, name = result.bursar, tenant.name
    budget = amount(result.given[name], tenant.unit) if name in result.given else "none"
    return [name, budget, *figures(books, lambda key: key == name), amount(result.overspend(tenant), tenant.unit),
            dollars(books.saved[name]), *latencies(result, result.of(name))]


def total_row(result):
    books = result.bursar
    over = sum(result.overspend(tenant) > 0 for tenant in TENANTS)
    return ["all", "", *figures(books, lambda key: True), f"{over} tenants", dollars(sum(books.saved.values())),
            *latencies(result, result.outcomes)]


def figures(books, wanted):
    """asked, by tier, by reason, tokens, spend of the wanted tenants."""
    decisions = {key: count for key, count in books.decisions.items() if wanted(key[0])}
    served = [sum(count for (_, at, decision), count in decisions.items() if at == tier and decision != "throttle")
              for tier in ADMISSIONS]
    refused = [sum(count for (tenant, why), count in books.refusals.items() if wanted(tenant) and why == reason)
               for reason in REASONS]
    tokens = sum(count for key, count in books.tokens.items() if wanted(key[0]))
    spend = sum(paid for key, paid in books.spend.items() if wanted(key[0]))
    return [f"{count:,}" for count in [sum(decisions.values()), *served, *refused, tokens]] + [dollars(spend)]


def latencies(result, outcomes):
    added = result.added(outcomes)
    return [milliseconds(percentile(added, part)) for part in (0.5, 0.95)]


def print_books(bursar, witnesses, left, faults):
    """The sums of both books side by side, and every difference between them."""
    def kind(books, wanted):
        return sum(count for key, count in books.tokens.items() if key[2] == wanted)

    pairs = [("input tokens", *(kind(books, "input") for books in (bursar, witnesses))),
             ("output tokens", *(kind(books, "output") for books in (bursar, witnesses))),
             ("spend, micros", *(sum(books.spend.values()) for books in (bursar, witnesses))),
             ("saved, micros", *(sum(books.saved.values()) for books in (bursar, witnesses))),
             ("decisions", *(sum(books.decisions.values()) for books in (bursar, witnesses)))]
    print_table(["books", "bursar's metrics", "upstream, clients", "difference"],
                [[name, f"{ours:,}", f"{theirs:,}", f"{ours - theirs:,}"] for name, ours, theirs in pairs])
    for fault in faults[:20]:
        print(f"  {fault}")
    if len(faults) > 20:
        print(f"  ... and {len(faults) - 20} more")
    if not faults:
        print(f"The books agree to the token and the micro-dollar, for each tenant and model; so does the ledger of {len(left)} tenants.")


# --- isolation ---------------------------------------------------------------


def print_isolation(both, alone):
    """The tenants other than the noisy one, with it and without it."""
    names = [tenant.name for tenant in TENANTS if tenant.name != workload.NOISY]
    groups = [(name, [name]) for name in names]
    groups.append(("the quiet ones", workload.QUIET))
    rows = [[label] + [cell for pair in zip(seen(both, members), seen(alone, members)) for cell in pair]
            for label, members in groups]
    head = ["tenant"] + [f"{what}, {when}" for what in ("asked", "served", "downgraded", "p50 ms", "p95 ms")
                         for when in ("noisy", "alone")]
    pairs = zip(past_bursar(both), past_bursar(alone))
    print_table(head, rows[:-1] + [None, rows[-1], ["past bursar"] + [cell for pair in pairs for cell in pair]])
    print("\npast bursar: every tenth request of all but the noisy tenant, a second time and without bursar, "
          "which tells what the machine's load alone does.\n")


def past_bursar(result):
    return described(result, [twin for twin in result.twins if twin.request.tenant != workload.NOISY])


def seen(result, members):
    """asked, served, downgraded, p50, p95"""
    return described(result, [outcome for name in members for outcome in result.of(name)])


def described(result, outcomes):
    served = [outcome for outcome in outcomes if outcome.status == 200]
    lower = sum(outcome.told("decision") == "downgrade" for outcome in served)
    return [f"{len(outcomes):,}", f"{len(served):,}", f"{lower:,}", *latencies(result, outcomes)]
