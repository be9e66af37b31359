"""Plugin configurations with as many tenants as there are tests, so that no test sees another's spending."""

import copy
import itertools

TIERS = [
    {"name": "default", "model": "gpt-4o", "price": {"input": 2.50, "cached_input": 1.25, "output": 10.0}},
    {"name": "standard", "model": "gpt-4.1-mini", "price": {"input": 0.40, "cached_input": 0.10, "output": 1.60},
     "below": 0.5},
    {"name": "compact", "model": "gpt-4o-mini", "price": {"input": 0.15, "cached_input": 0.075, "output": 0.60},
     "below": 0.2},
]
BY_HEADER = {"from": [{"header": "x-tenant-id"}], "missing": "reject", "unknown": "reject"}
TENANTS_PER_PLAN = 300


def budget(tokens, window="none", unit="tokens"):
    return {"initial_budget": tokens, "unit": unit, "window": window}


def bucket(tokens, window, **more):
    return dict({"tokens_per_window": tokens, "window": window}, **more)


def plugin_config(plans, **over):
    """A configuration with TENANTS_PER_PLAN tenants named `<plan>-<n>` on every plan."""
    tenants = {f"{plan}-{n}": {"plan": plan} for plan in plans for n in range(TENANTS_PER_PLAN)}
    # An upstream that is scripted to say no to one test says nothing to the others: see `Rig.headers`.
    # Gauges of thousands of tenants would be read again and again by tests that ask for one.
    config = {"tenant": BY_HEADER, "tiers": TIERS, "plans": plans, "tenants": tenants, "credentials": "own", "metrics": {"tenants": 0}}
    config.update(over)
    # A copy, so that a test which changes its configuration changes no other's.
    return copy.deepcopy(config)


class Pool:
    """Hands out the tenants of a `plugin_config`, each once."""

    def __init__(self):
        self._next = {}

    def take(self, plan):
        number = next(self._next.setdefault(plan, itertools.count()))
        assert number < TENANTS_PER_PLAN, f"more than {TENANTS_PER_PLAN} tests use plan {plan}"
        return f"{plan}-{number}"
