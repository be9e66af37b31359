"""Budgets in dollars: the same rules, in millionths."""

import pytest

from harness.config import TIERS, budget, plugin_config

PLANS = {"dollars": {"budget": budget(1.0, unit="usd", window="month")}}


@pytest.fixture(scope="module")
def rig(start_rig):
    return start_rig(plugin_config(PLANS))


def spend_micros(rig, tenant, prompt, completion):
    entry = rig.log(rig.chat(tenant, usage=(prompt, completion)))
    return entry["charged"]


def test_a_dollar_budget_is_charged_by_price(rig):
    tenant = rig.tenant("dollars")
    assert spend_micros(rig, tenant, 100_000, 10_000) == 350_000
    assert rig.remaining(tenant) == 650_000


def test_a_dollar_budget_downgrades_and_ends_like_any_other(rig):
    tenant = rig.tenant("dollars")
    spend_micros(rig, tenant, 200_000, 10_000)
    low = rig.chat(tenant, usage=(900_000, 20_000))
    assert low.told == ("standard", TIERS[1]["model"], "downgrade", "budget_low")
    assert rig.log(low)["charged"] == 392_000
    assert rig.chat(tenant, usage=(1_000_000, 0)).told[0] == "compact"


def test_a_dollar_budget_that_is_spent_is_refused_until_the_month_ends(rig):
    tenant = rig.tenant("dollars")
    spend_micros(rig, tenant, 400_000, 0)
    refused = rig.chat(tenant)
    assert (refused.status, refused.code) == (429, "insufficient_quota")
    assert refused.header("x-should-retry") == "false"
    assert 0 < int(refused.header("retry-after")) <= 31 * 86_400


def test_a_dollar_budget_tells_its_unit(rig):
    response = rig.chat(rig.tenant("dollars"))
    assert ';qu="usd-micros"' in response.header("ratelimit-policy")
    assert response.header("x-ratelimit-limit-tokens") is None
