#!/usr/bin/env python3
"""Prints the prices of models, in the form in which a ladder's tiers have them, from the catalogue in the package genai-prices.

    make prices MODELS="gpt-5* claude-*"
    make prices MODELS="*haiku*" PROVIDER=aws

The prices are those of the catalogue of the day OF. For a later catalogue, change OF here and the version in tests/e2e/requirements.txt.
"""

import argparse
import datetime
import fnmatch
import json
import sys
from decimal import ROUND_UP, Decimal
from importlib import metadata

from genai_prices.data import providers
from genai_prices.types import TieredPrices

OF = datetime.datetime(2026, 11, 29, tzinfo=datetime.timezone.utc)
# bursar's name of a rate: the catalogue's name.
RATES = {"input": "input_mtok", "cached_input": "cache_read_mtok", "cache_write": "cache_write_mtok",
         "cache_write_1h": "cache_write_1h_mtok", "output": "output_mtok"}
SERVICE_TIERS = ("priority", "flex", "fast")


def makers():
    """(provider, model) for all models that are offered by their own maker."""
    for provider in providers:
        for model in provider.models:
            if provider.model_match and provider.model_match.is_match(model.id.lower()):
                yield provider, model


def find(pattern, provider=None):
    """The models that a glob matches. A pattern without a wildcard also finds the models for which the catalogue has this name."""
    if provider:
        all_models = [(known, model) for known in providers if known.id == provider for model in known.models]
    else:
        all_models = list(makers())
    exact = not set(pattern) & set("*?[")
    return [(known, model) for known, model in all_models
            if fnmatch.fnmatchcase(model.id, pattern) or exact and model.is_match(pattern)]


def rates(prices, start=None):
    """A price's rates by bursar's keys. `start`: if given, the rates for prompts of at least as many tokens."""
    found = {}
    for key, name in RATES.items():
        rate = getattr(prices, name)
        if isinstance(rate, TieredPrices):
            steps = [tier.price for tier in rate.tiers if start is not None and tier.start <= start]
            rate = steps[-1] if steps else rate.base
        if rate is not None:
            found[key] = rate
    return found


def steps(prices):
    """The lengths of the prompt, in tokens, from which on other rates apply."""
    tiered = [getattr(prices, name) for name in RATES.values()]
    return sorted({tier.start for rate in tiered if isinstance(rate, TieredPrices) for tier in rate.tiers})


def multiple(model, service_tier):
    """The factor of a service tier: the largest of all rates' factors, so that no rate is too low."""
    usual, other = model.get_prices(OF), model.get_prices(OF, {"service_tier": service_tier})
    usual, other = rates(usual), rates(other)
    times = [other[key] / usual[key] for key in usual if usual[key]]
    return max(times, default=Decimal(1)).quantize(Decimal("0.000001"), ROUND_UP)


def number(value):
    whole = value == value.to_integral_value()
    return int(value) if whole else float(value)


def price(model):
    """A tier's `price` for this model, or None if the catalogue has no price in tokens."""
    prices = model.get_prices(OF)
    base = rates(prices)
    if not {"input", "output"} <= base.keys():
        return None
    found = {key: number(rate) for key, rate in base.items()}
    times = {name: multiple(model, name) for name in SERVICE_TIERS}
    times = {name: number(times) for name, times in times.items() if times != 1}
    if times:
        found["service_tiers"] = times
    above = [{"input_tokens": start} | {key: number(rate) for key, rate in rates(prices, start).items() if rate != base[key]}
             for start in steps(prices)]
    if above:
        found["above"] = above
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", help="names or globs of models")
    parser.add_argument("--provider", help="who serves them, as the catalogue calls it; default: who makes them")
    arguments = parser.parse_args()
    print(f"# genai-prices {metadata.version('genai-prices')}, prices of {OF.date()}, USD per million tokens", file=sys.stderr)
    missing = []
    for pattern in arguments.models:
        priced = [(known, model, price(model)) for known, model in find(pattern, arguments.provider)]
        for known, model, found in priced:
            window = {"context_window": model.context_window} if model.context_window else {}
            if found:
                print(json.dumps({"model": model.id} | window | {"price": found}))
        if not any(found for _, _, found in priced):
            missing.append(pattern)
    for pattern in missing:
        print(f"no price of `{pattern}` is in the catalogue: a request for a model without a price costs as much as the dearest tier",
              file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
