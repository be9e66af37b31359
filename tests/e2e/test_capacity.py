"""What tenants share of an upstream: how much of it each priority gets, with several workers and many at once."""

import itertools
import time

import pytest

from harness import answers
from harness.config import budget, plugin_config
from harness.rig import MODES, chat_body
from harness.wait import in_parallel, let_pass

BIG = 1_000_000_000
NEVER = "36500d"   # a window in which nothing worth a token comes back while a test runs
PLANS = {
    "critical": {"priority": "critical", "budget": budget(BIG)},
    "standard": {"budget": budget(BIG)},
    "best": {"priority": "best_effort", "budget": budget(BIG)},
    "never": {"priority": "best_effort", "never_downgrade": True},
    # Its requests fall back to the lightest tier whatever they ask for.
    "fallback": {"priority": "best_effort", "budget": budget(BIG), "tiers": ["compact"]},
}


def capacity(tokens, window=NEVER, critical=0, standard=0):
    return {"tokens_per_window": tokens, "window": window, "reserved": {"critical": critical, "standard": standard}}


def ladder(name, default=None, compact=None):
    """A ladder of its own for each test, since a capacity belongs to its model: `name` and `name-mini`."""
    tiers = [{"name": "default", "model": name}, {"name": "compact", "model": f"{name}-mini", "below": 0.2}]
    for tier, share in zip(tiers, (default, compact)):
        if share:
            tier["capacity"] = share
    return {"tiers": tiers}


LADDERS = [
    ladder("flood", compact=capacity(10_000, critical=0.3, standard=0.2)),
    ladder("race", capacity(3_200), capacity(1_600)),
    ladder("wait", capacity(1_000, "2s")),
    ladder("fail", capacity(1_000)),
    ladder("large", capacity(1_000, critical=0.5)),
]


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    config = plugin_config(PLANS, ladders=LADDERS)
    del config["tiers"]
    return start_rig(config, mode=request.param)


def padded(model):
    """A text for which a request for `model` takes 32 tokens: 22 for 88 bytes, and ten of output. It then uses just those."""
    return "x" * (88 - len(chat_body(model=model, text="")))


def ask(rig, tenant, model):
    return rig.chat(tenant, model=model, text=padded(model), usage=(22, 10))


SIZE = 32


def settled(rig, responses):
    """Settles those that were served; how many that are."""
    served = [response for response in responses if response.status == 200]
    rig.settle_all(served)
    return len(served)


def used(rig, model):
    """The tokens that were settled for a model."""
    return sum(rig.tokens(model=model).values())


def assert_refused(response):
    assert (response.status, response.code) == (429, "rate_limit_exceeded")
    assert response.told[2:] == ("throttle", "tier_capacity")


def test_a_flood_of_fallbacks_fills_its_part_and_nobody_above_it_notices(rig):
    flood = [rig.tenant("fallback") for _ in range(8)]
    others = {plan: rig.tenant(plan) for plan in ("critical", "standard")}
    # Of 480 requests 30 are critical and 30 standard ones: 1,920 tokens together, of the 2,000 reserved for both.
    jobs = [{0: "critical", 8: "standard"}.get(number % 16) for number in range(480)]
    tenants = itertools.cycle(flood)
    jobs = [(plan, others[plan], "flood-mini") if plan else ("fallback", next(tenants), "flood") for plan in jobs]
    began = time.monotonic()
    responses = in_parallel(16, lambda job: (job[0], ask(rig, *job[1:])), jobs)
    by_plan = {plan: [response for kind, response in responses if kind == plan] for plan in ("critical", "standard", "fallback")}
    served = {plan: settled(rig, responses) for plan, responses in by_plan.items()}
    for plan in others:
        assert {response.told for response in by_plan[plan]} == {("compact", "flood-mini", "admit", None)}, plan
        assert served[plan] == 30
    for response in by_plan["fallback"]:
        if response.status == 200:
            assert response.told == ("compact", "flood-mini", "downgrade", "tier_preference")
        else:
            assert_refused(response)
    # The flood had all that it may have, and no more: the next one of it would not fit.
    assert served["fallback"] * SIZE <= 5_000
    left = rig.metric("bursar_capacity_remaining", tier="compact", model="flood-mini")
    assert left < 5_000 + SIZE
    # To the token: what is taken is what was settled.
    assert used(rig, "flood-mini") == sum(served.values()) * SIZE == 10_000 - left
    refused = sum(rig.metric("bursar_throttled_total", tenant=tenant, reason="tier_capacity") for tenant in flood)
    assert refused == 420 - served["fallback"]
    print(f"\n{rig.mode}: 480 requests in {time.monotonic() - began:.1f} s: {served} served, {refused:.0f} of the flood refused, "
          f"{left:.0f} of 10,000 tokens left, {rig.metric('bursar_state_conflicts_total'):.0f} steps lost to other workers")


def test_a_capacity_worth_so_many_serves_just_so_many_then_the_next_tier_does(rig):
    tenants = [rig.tenant("best") for _ in range(20)]
    responses = in_parallel(32, lambda number: (tenants[number % 20], ask(rig, tenants[number % 20], "race")), range(400))
    tiers = {tier: [r for _, r in responses if r.status == 200 and r.told[0] == tier] for tier in ("default", "compact")}
    assert {tier: settled(rig, served) for tier, served in tiers.items()} == {"default": 100, "compact": 50}
    assert {response.told[2:] for response in tiers["default"]} == {("admit", None)}
    assert {response.told[2:] for response in tiers["compact"]} == {("downgrade", "tier_capacity")}
    for _, response in responses:
        if response.status != 200:
            assert_refused(response)
    assert rig.log(tiers["compact"][0])["reason"] == "tier_capacity"
    counted = sum(rig.metric("bursar_downgraded_total", tenant=tenant, reason="tier_capacity") for tenant in tenants)
    assert counted == 50
    for tier, model in (("default", "race"), ("compact", "race-mini")):
        assert rig.metric("bursar_capacity_remaining", tier=tier, model=model) == 0
    # Who was refused, or decided about twice, has nothing charged: a model on no ladder shows what is left.
    for tenant in tenants:
        left = rig.log(rig.chat(tenant, model="elsewhere", usage=(0, 0)))["remaining"]
        served = sum(name == tenant and response.status == 200 for name, response in responses)
        # Its own reservation was still held then.
        assert left == BIG - served * SIZE, tenant


def test_the_request_after_the_wait_passes_and_none_before(rig):
    assert rig.log(rig.chat(rig.tenant("critical"), model="wait", usage=(1_000, 0)))["charged"] == 1_000
    tenant = rig.tenant("never")
    asked = time.monotonic()
    refused = rig.chat(tenant, model="wait", max_tokens=500)
    answered = time.monotonic()
    assert_refused(refused)
    wait = int(refused.header("retry-after-ms")) / 1000
    assert int(refused.header("retry-after")) == -(-int(refused.header("retry-after-ms")) // 1000)
    # 500 and a prompt of some twenty, at 500 a second.
    assert 0 < wait <= 1.1
    too_early = []
    while time.monotonic() < asked + wait - 0.25:
        let_pass(0.1)
        if time.monotonic() < asked + wait - 0.002:
            sent = time.monotonic()
            too_early.append((sent, rig.chat(tenant, model="wait", max_tokens=500)))
    # Each refusal names the same moment, whenever it is asked.
    for sent, response in too_early:
        if response.status == 200:
            assert time.monotonic() > asked + wait
        else:
            assert sent + int(response.header("retry-after-ms")) / 1000 <= answered + wait + 0.002
    if not any(response.status == 200 for _, response in too_early):
        let_pass(answered + wait - time.monotonic())
        assert rig.chat(tenant, model="wait", max_tokens=500).status == 200
    # Who may be sent down does not wait.
    assert rig.chat(rig.tenant("critical"), model="wait", max_tokens=980).told == (
        "compact", "wait-mini", "downgrade", "tier_capacity")


def test_what_an_upstream_refuses_is_given_back(rig):
    tenant = rig.tenant("standard")
    for status in (503, 429, 400):
        response = rig.chat(tenant, model="fail", answer=answers.error(status))
        assert response.status == status
        rig.log(response)
        assert rig.metric("bursar_capacity_remaining", tier="default", model="fail") == 1_000
    rig.log(ask(rig, tenant, "fail"))
    assert rig.metric("bursar_capacity_remaining", tier="default", model="fail") == 1_000 - SIZE


def test_what_a_priority_can_never_have_is_told_so(rig):
    response = rig.chat(rig.tenant("never"), model="large", max_tokens=600)
    assert (response.status, response.code) == (429, "request_exceeds_burst")
    assert response.told[2:] == ("throttle", "tier_capacity")
    assert response.header("x-should-retry") == "false"
    assert response.all("retry-after") == response.all("retry-after-ms") == []
    assert rig.chat(rig.tenant("critical"), model="large", max_tokens=600).status == 200
