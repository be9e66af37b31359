"""Why a request is served where it is: each rule of the tier policy, in headers, access log and metrics."""

import pytest

from harness import answers
from harness.config import bucket, budget, plugin_config
from harness.rig import MODES, chat_body
from harness.wait import until

INITIAL = 100_000
PLANS = {
    "no-middle": {"budget": budget(INITIAL), "tiers": ["default", "compact"]},
    "floored": {"budget": budget(INITIAL), "floor": "standard", "on_exhausted": {"degrade": {"overdraft": 0.1}}},
    "light": {"budget": budget(INITIAL), "tiers": ["standard", "compact"]},
    # A window that has thousands of days left, and a half-life beside which a test takes no time.
    "paced": {"budget": budget(INITIAL, "36500d"), "pace": {"half_life": "1d"}},
    "moneyed": {"budget": budget(1.0, "36500d", "usd"), "pace": {"half_life": "1d", "cap": 0.8}},
    "steady": {"budget": budget(INITIAL), "hysteresis": 0.05},
    "looking": {"budget": budget(INITIAL), "bucket": bucket(INITIAL, "1h"), "shadow": True},
    "early": {"budget": budget(INITIAL), "below": {"standard": 0.9, "compact": 0.1}},
}


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param)


def told_everywhere(rig, tenant, response):
    """What was told of a decision, once the access log and the metric have been seen to say the same as the headers."""
    tier, model, decision, reason = response.told
    entry = rig.log(response)
    assert [entry[key] for key in ("tier", "model", "decision", "reason")] == [tier, model, decision, reason]
    assert rig.seen(response).json()["model"] == model
    metrics = ("bursar_downgraded_total", "bursar_kept_total")
    due = [1, 0] if decision == "downgrade" else [0, 1]
    until(lambda: [rig.metric(metric, tenant=tenant, tier=tier, reason=reason) for metric in metrics] == due, "the decision's metric")
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


def test_a_budget_that_would_not_last_downgrades_before_its_static_marks(rig):
    tenant = rig.tenant("paced")
    # Without a history there is nothing to project.
    assert rig.spend(tenant, 5_000).told[2:] == ("admit", None)
    # 95 % are left, which is above the cap.
    assert rig.spend(tenant, 10_000).told[2:] == ("admit", None)
    low = rig.chat(tenant)
    assert told_everywhere(rig, tenant, low) == ("compact", "gpt-4o-mini", "downgrade", "budget_pace")
    rig.spend(tenant, 70_000)
    lower = rig.chat(tenant)
    assert told_everywhere(rig, tenant, lower) == ("compact", "gpt-4o-mini", "downgrade", "budget_low")


def test_the_pace_of_a_budget_in_money_is_projected_in_money_and_up_to_the_plans_cap(rig):
    tenant = rig.tenant("moneyed")
    for expected in (None, None, None, "budget_pace"):
        # A tenth of the budget as asked: 40,000 tokens of input for $2.50 a million.
        response = rig.chat(tenant, usage=(40_000, 0))
        assert response.told[3] == expected
        rig.log(response)
    # It is the lightest that has to serve: no other would last for thousands of days.
    assert response.told[0] == "compact"
    assert rig.log(response)["charged"] == 6_000


def held(rig, tenant, tokens):
    """Holds so many tokens of the tenant's budget, until the gate opens."""
    gate = answers.Gate()
    test_id = rig.new_id(answers.json_answer("gpt-4o", answers.usage(1, 0), before=gate.passed))
    connection = rig.connect()
    rig.send(connection, test_id, tenant, [chat_body(max_tokens=tokens)])
    gate.wait_until_reached()
    return gate, connection, test_id


@pytest.mark.parametrize("spent, after", [(46_000, "standard"), (40_000, "default")])
def test_a_tier_is_left_only_when_what_remains_has_risen_past_its_mark_by_the_margin(rig, spent, after):
    tenant = rig.tenant("steady")
    rig.spend(tenant, spent)
    gate, connection, test_id = held(rig, tenant, 20_000)
    low = rig.chat(tenant)
    assert told_everywhere(rig, tenant, low) == ("standard", "gpt-4.1-mini", "downgrade", "budget_low")
    gate.open()
    with connection:
        connection.read()
    rig.envoy.logged(test_id)
    # More than half of the budget remains again.
    response = rig.chat(tenant)
    assert response.told[0] == after
    assert rig.log(response)["remaining"] > 50_000


def shadowed(rig, tenant, response, decision, reason=""):
    """What is told of a request in shadow mode, once log and metric have been seen to say the same as the header."""
    told = response.header("x-bursar-shadow")
    assert rig.log(response)["shadow"] == told
    assert rig.metric("bursar_shadow_total", tenant=tenant, decision=decision, **({"reason": reason} if reason else {})) == 1
    return told


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_in_shadow_mode_nothing_is_changed_or_refused_and_all_is_told_and_metered(rig, stream):
    tenant = rig.tenant("looking")
    # A stream is asked for its usage: the one thing in a body that has to be added.
    asks = {"stream_options": {"include_usage": True}} if stream else {}
    for used, decision, reason, told in [
        (60_000, "admit", "", "admit"),
        (39_990, "downgrade", "budget_low", "downgrade;tier=standard;model=gpt-4.1-mini;reason=budget_low"),
        (7, "throttle", "budget_exhausted", "throttle;reason=budget_exhausted"),
    ]:
        sent = chat_body(stream=stream, **asks)
        response = rig.post(tenant, sent, usage=(used, 0))
        assert response.status == 200
        assert response.told == ("default", "gpt-4o", "admit", None)
        assert rig.seen(response).body == sent
        assert shadowed(rig, tenant, response, decision, reason) == told
        assert rig.log(response)["charged"] == used
    assert rig.metric("bursar_requests_total", tenant=tenant, tier="default", decision="admit") == 3
    assert rig.metric("bursar_throttled_total", tenant=tenant) == 0
    assert rig.metric("bursar_downgraded_total", tenant=tenant) == 0


def test_in_shadow_mode_a_body_that_cannot_be_read_reaches_the_upstream(rig):
    tenant = rig.tenant("looking")
    body = b'{"model": "gpt-4o", "model": "gpt-4o-mini"}'
    response = rig.post(tenant, body, answer=answers.error(400))
    assert response.status == 400
    assert rig.seen(response).body == body
    assert shadowed(rig, tenant, response, "refuse", "invalid_request_body") == "refuse;reason=invalid_request_body"
    assert rig.left(tenant) == INITIAL
