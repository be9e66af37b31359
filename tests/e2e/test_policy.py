"""Why a request is served where it is: each rule of the tier policy, in headers, access log and metrics."""

import pytest

from harness.config import budget, plugin_config
from harness.rig import MODES

INITIAL = 100_000
PLANS = {
    "no-middle": {"budget": budget(INITIAL), "tiers": ["default", "compact"]},
    "floored": {"budget": budget(INITIAL), "floor": "standard", "on_exhausted": {"degrade": {"overdraft": 0.1}}},
    "light": {"budget": budget(INITIAL), "tiers": ["standard", "compact"]},
    "early": {"budget": budget(INITIAL), "below": {"standard": 0.9, "compact": 0.1}},
}


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param)


def told_everywhere(rig, tenant, response):
    """What was told of a downgrade, once the access log and the metric have been seen to say the same as the headers."""
    tier, model, decision, reason = response.told
    entry = rig.log(response)
    assert [entry[key] for key in ("tier", "model", "decision", "reason")] == [tier, model, decision, reason]
    assert rig.seen(response).json()["model"] == model
    counted = rig.metric("bursar_downgraded_total", tenant=tenant, tier=tier, reason=reason)
    assert counted == (1 if decision == "downgrade" else 0)
    return response.told


def test_a_tier_that_a_plan_does_not_allow_is_passed_over(rig):
    tenant = rig.tenant("no-middle")
    rig.spend(tenant, 60_000)
    kept = rig.chat(tenant)
    assert told_everywhere(rig, tenant, kept) == ("default", "gpt-4o", "admit", "tier_preference")
    rig.spend(tenant, 25_000)
    lowest = rig.chat(tenant)
    assert told_everywhere(rig, tenant, lowest) == ("compact", "gpt-4o-mini", "downgrade", "budget_low")


def test_a_floor_holds_also_for_the_overdraft(rig):
    tenant = rig.tenant("floored")
    rig.spend(tenant, 90_000)
    low = rig.chat(tenant, usage=(10_000, 0))
    assert told_everywhere(rig, tenant, low) == ("standard", "gpt-4.1-mini", "downgrade", "budget_low")
    spent = rig.chat(tenant, usage=(10_000, 0))
    assert told_everywhere(rig, tenant, spent) == ("standard", "gpt-4.1-mini", "downgrade", "budget_exhausted")
    refused = rig.chat(tenant)
    assert (refused.status, refused.code) == (429, "insufficient_quota")


def test_a_tenant_whose_plan_allows_lighter_tiers_alone_never_gets_the_first(rig):
    tenant = rig.tenant("light")
    full = rig.chat(tenant)
    assert told_everywhere(rig, tenant, full) == ("standard", "gpt-4.1-mini", "downgrade", "tier_preference")
    kept = rig.chat(tenant, model="gpt-4o-mini")
    assert kept.told == ("compact", "gpt-4o-mini", "admit", None)


def test_a_plans_own_marks_stand_in_the_place_of_the_tiers(rig):
    tenant = rig.tenant("early")
    rig.spend(tenant, 15_000)
    early = rig.chat(tenant)
    assert told_everywhere(rig, tenant, early) == ("standard", "gpt-4.1-mini", "downgrade", "budget_low")
    rig.spend(tenant, 70_000)
    assert rig.chat(tenant).told[0] == "standard"
