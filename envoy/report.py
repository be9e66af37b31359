#!/usr/bin/env python3
"""Sums up an access log: who spent how much on which model, day by day. Also explains the decision about one request, and writes charges in
the FOCUS format for chargeback.

    make report LOG=access.log
    make report LOG=access.log ARGS="--day yesterday --by tenant"
    make report LOG=access.log ARGS="--why globex"
    make report LOG=access.log ARGS="--request 9a1c…"
    make report LOG=access.log ARGS="--focus charges.csv --cost-centres centres.json"

Reads access logs in the shipped format: each line is a JSON object with `time` and, under `bursar`, all of bursar's fields.
"""

import argparse
import collections
import csv
import datetime
import json
import sys
from decimal import Decimal
from pathlib import Path

KEYS = ("day", "tenant", "model")
COUNTS = ("requests", "downgraded", "refused", "input_tokens", "cached_tokens", "output_tokens")


class Sum:
    """The sums over several requests."""

    def __init__(self):
        self.counts = collections.Counter()
        self.micros = 0

    def add(self, said):
        self.counts["requests"] += 1
        self.counts["downgraded"] += said.get("decision") == "downgrade"
        # A request that was refused before a tier was chosen (without a tenant, or not a request of that API) has no decision.
        self.counts["refused"] += said.get("decision", "throttle") == "throttle"
        for tokens in COUNTS[3:]:
            self.counts[tokens] += said.get(tokens, 0)
        self.micros += said.get("spend", 0)

    @property
    def usd(self):
        return Decimal(self.micros) / 1_000_000

    @property
    def tokens(self):
        return self.counts["input_tokens"] + self.counts["output_tokens"]


def entries(lines):
    """(entry, bursar's fields) of all requests that were metered or refused; counts the lines that are no entry."""
    unread = 0
    for line in lines:
        try:
            entry = json.loads(line)
            said = entry["bursar"]
            said = json.loads(said) if isinstance(said, str) and said not in ("", "-") else said
            entry["time"][:10]
        except (ValueError, KeyError, TypeError):
            unread += bool(line.strip())
            continue
        if isinstance(said, dict) and is_request(entry, said):
            yield entry, said
    if unread:
        print(f"{unread} lines are no entries of an access log as bursar ships it, and are not counted", file=sys.stderr)


def is_request(entry, said):
    """Whether the request was one to a model. A query of the caller's own limits also has no decision, but is not counted."""
    return "decision" in said or int(entry.get("status") or 0) >= 400


def key_of(entry, said, by):
    parts = {"day": entry["time"][:10], "tenant": said.get("tenant", ""), "model": said.get("model", ""), "cluster": entry.get("cluster") or ""}
    return tuple(parts[name] for name in by)


def sums(found, by, day=None):
    all_sums = collections.defaultdict(Sum)
    for entry, said in found:
        if day in (None, entry["time"][:10]):
            all_sums[key_of(entry, said, by)].add(said)
    return all_sums


def table(all_sums, by):
    """The rows by day, and within each day by cost, the dearest first."""
    heads = [*by, *COUNTS, "usd"]
    rows = [[*key, *(str(one.counts[name]) for name in COUNTS), f"{one.usd:.6f}"]
            for key, one in sorted(all_sums.items(), key=lambda pair: (pair[0][0] if by[0] == "day" else "", -pair[1].micros, pair[0]))]
    widths = [max(len(row[at]) for row in [heads, *rows]) for at in range(len(heads))]
    for row in [heads, *rows]:
        cells = [cell.ljust(width) if at < len(by) else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        print("  ".join(cells).rstrip())


def why(chosen):
    """Print the decision about each of these requests; False if there is none."""
    told = False
    for entry, said in chosen:
        told = True
        print(f"{entry['time']} {said.get('tenant', 'nobody')}: {said.get('decision', 'refused')}"
              + (f", {said['reason']}" if said.get("reason") else ""))
        words = {"requested_model": "asked for", "model": "sent", "tier": "tier", "limit": "by the limit", "mark": "below this share of it",
                 "remaining": "left after it", "charged": "charged", "settled_by": "settled by", "upstream_refusal": "the provider said"}
        for name, word in words.items():
            if name in said:
                unsent = name == "model" and said.get("decision") == "throttle"
                print(f"  {'would have been sent' if unsent else word}: {said[name]}")
        print(f"  request: {entry.get('request_id')}")
    return told


def last_of(found, tenant, day):
    """The tenant's last request that was lowered or refused, in a list; an empty list if there is none."""
    chosen = [(entry, said) for entry, said in found
              if said.get("tenant") == tenant and said.get("decision") != "admit" and day in (None, entry["time"][:10])]
    return sorted(chosen, key=lambda pair: pair[0]["time"])[-1:]


# --- FOCUS -------------------------------------------------------------------

# All columns that FOCUS 1.2 requires (https://focus.finops.org/focus-specification/v1-2/, read 2026-11-29), those of its conditional
# columns for which a log has values, and our own, whose names begin with `x_` as FOCUS requires.
FOCUS = ("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart", "ChargeCategory",
         "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName",
         "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName",
         "ChargeFrequency", "ConsumedQuantity", "ConsumedUnit", "ServiceSubcategory", "SkuId", "SubAccountId", "SubAccountName", "Tags",
         "x_Requests", "x_InputTokens", "x_CachedInputTokens", "x_OutputTokens")


def instant(day):
    return f"{day.isoformat()}T00:00:00Z"


def charge(day, tenant, model, cluster, one, args, centres):
    date = datetime.date.fromisoformat(day)
    month = date.replace(day=1)
    after = (month + datetime.timedelta(days=31)).replace(day=1)
    provider = args.provider or cluster or "unknown"
    cost = f"{one.usd:f}"
    tags = {"cost_centre": centres[tenant]} if tenant in centres else {}
    return dict(
        dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost),
        BillingAccountId=args.account, BillingAccountName=args.account, BillingCurrency="USD",
        BillingPeriodStart=instant(month), BillingPeriodEnd=instant(after),
        ChargePeriodStart=instant(date), ChargePeriodEnd=instant(date + datetime.timedelta(days=1)),
        ChargeCategory="Usage", ChargeClass="", ChargeFrequency="Usage-Based", ChargeDescription=f"{one.counts['requests']} requests to {model}",
        InvoiceIssuerName=args.issuer or provider, ProviderName=provider, PublisherName=provider,
        PricingQuantity=one.tokens, PricingUnit="Tokens", ConsumedQuantity=one.tokens, ConsumedUnit="Tokens",
        ServiceCategory="AI and Machine Learning", ServiceSubcategory="Generative AI", ServiceName="LLM API", SkuId=model,
        SubAccountId=tenant, SubAccountName=tenant, Tags=json.dumps(tags),
        x_Requests=one.counts["requests"], x_InputTokens=one.counts["input_tokens"], x_CachedInputTokens=one.counts["cached_tokens"],
        x_OutputTokens=one.counts["output_tokens"])


def write_focus(found, path, args):
    centres = json.loads(Path(args.cost_centres).read_text(encoding="utf-8")) if args.cost_centres else {}
    settled = ((entry, said) for entry, said in found if said.get("settled_by") in ("usage", "estimate"))
    all_sums = sums(settled, (*KEYS, "cluster"), args.day)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FOCUS)
        writer.writeheader()
        for key, one in sorted(all_sums.items()):
            writer.writerow(charge(*key, one, args, centres))
    print(f"{path}: {len(all_sums)} charges, {sum(one.usd for one in all_sums.values()):.6f} USD")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", nargs="+", help="access logs")
    parser.add_argument("--day", help="one day in UTC: 2026-11-29, today, or yesterday")
    parser.add_argument("--by", default=",".join(KEYS), help="what to sum by: day, tenant, model")
    parser.add_argument("--request", metavar="ID", help="why the request with this id was decided so")
    parser.add_argument("--why", metavar="TENANT", help="why this tenant's last request that was lowered or refused was decided so")
    parser.add_argument("--focus", metavar="CSV", help="write charges as FOCUS 1.2 has them")
    parser.add_argument("--cost-centres", metavar="JSON", help='{"tenant": "cost centre"}, for the tags of the charges')
    parser.add_argument("--account", default="bursar", help="who pays the provider, in the charges")
    parser.add_argument("--provider", help="who provides, in the charges; default: the cluster's name")
    parser.add_argument("--issuer", help="who writes the invoice, in the charges; default: the provider")
    args = parser.parse_args()
    today = datetime.datetime.now(datetime.timezone.utc).date()
    named = {"today": today, "yesterday": today - datetime.timedelta(days=1)}
    args.day = named[args.day].isoformat() if args.day in named else args.day
    args.by = tuple(args.by.split(","))
    if not set(args.by) <= set(KEYS):
        parser.error(f"--by takes {', '.join(KEYS)}")
    return args


def lines_of(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as log:
            yield from log
    except OSError as error:
        sys.exit(f"{path} cannot be read: {error.strerror}")


def main():
    args = arguments()
    found = entries(line for path in args.log for line in lines_of(path))
    if args.request:
        chosen = (pair for pair in found if pair[0].get("request_id") == args.request)
        return 0 if why(chosen) else f"no request {args.request} is in the log, or it was not metered"
    if args.why:
        return 0 if why(last_of(found, args.why, args.day)) else f"no request of {args.why} in the log was lowered or refused"
    if args.focus:
        return write_focus(found, args.focus, args)
    all_sums = sums(found, args.by, args.day)
    if not all_sums:
        return print(f"the log has no request{f' of {args.day}' if args.day else ''}")
    return table(all_sums, args.by)


if __name__ == "__main__":
    sys.exit(main())
