"""Limits that stack: all of a tenant's limits hold, and the one that refuses is named."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import answers
from harness.config import bucket, budget, plugin_config
from harness.rig import MODES, chat_body

LARGE = 1_000_000
PLANS = {
    "stacked": {"limits": [
        {"name": "month", "budget": budget(LARGE, "month")},
        {"name": "day", "budget": budget(1_000, "day")},
        {"name": "tpm", "bucket": bucket(LARGE, "1m")},
    ]},
    "rpm": {"limits": [{"name": "rpm", "bucket": {"requests_per_window": 3, "window": "1h"}}]},
    "few": {"concurrency": 2},
    "likely": {"budget": budget(LARGE), "hold": "likely"},
    "dear": {"limits": [{"name": "best", "models": ["gpt-4o"], "budget": budget(1_000, "day")}]},
}


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param)


def limited(rig, tenant, limit, reason):
    return rig.metric("bursar_limited_total", tenant=tenant, limit=limit, reason=reason)


def test_the_budget_that_is_spent_is_named_and_counted(rig):
    tenant = rig.tenant("stacked")
    assert rig.chat(tenant, usage=(990, 5)).status == 200
    refused = rig.chat(tenant)
    assert (refused.status, refused.code) == (429, "insufficient_quota")
    assert refused.header("x-bursar-limit") == "day"
    assert "Limit: day." in refused.json()["error"]["message"]
    assert '"month";q=1000000' in refused.header("ratelimit-policy") and '"day";q=1000' in refused.header("ratelimit-policy")
    assert limited(rig, tenant, "day", "budget_exhausted") == 1


def test_requests_are_counted_and_others_may_still_ask(rig):
    tenant, other = rig.tenant("rpm"), rig.tenant("rpm")
    assert [rig.chat(tenant).status for _ in range(3)] == [200] * 3
    refused = rig.chat(tenant)
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert refused.header("x-bursar-limit") == "rpm"
    assert refused.header("x-ratelimit-remaining-requests") == "0"
    assert 1_190 <= int(refused.header("retry-after")) <= 1_200
    assert rig.chat(other).status == 200


def test_no_more_requests_are_in_flight_than_may_be(rig):
    tenant = rig.tenant("few")
    gates = [answers.Gate(), answers.Gate()]

    def wait(gate):
        answer = answers.Answer([gate.passed, answers.completion("gpt-4o", answers.usage(5, 5))])
        return rig.chat(tenant, answer=answer)

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(wait, gate) for gate in gates]
        for gate in gates:
            gate.wait_until_reached()
        refused = rig.chat(tenant)
        assert (refused.status, refused.code, refused.header("x-bursar-limit")) == (429, "rate_limit_exceeded", "concurrency")
        assert refused.header("x-bursar-reason") == "concurrency" and refused.header("retry-after") == "1"
        for gate in gates:
            gate.open()
    assert [answer.result().status for answer in waiting] == [200, 200]
    rig.settle_all([answer.result() for answer in waiting])
    assert rig.chat(tenant).status == 200


def test_a_spent_limit_of_a_model_lowers_to_another(rig):
    tenant = rig.tenant("dear")
    assert rig.chat(tenant, usage=(990, 5)).status == 200
    lowered = rig.chat(tenant)
    assert lowered.status == 200
    assert (lowered.header("x-bursar-decision"), lowered.header("x-bursar-model")) == ("downgrade", "gpt-4o-mini")


def test_what_a_request_uses_beyond_its_hold_is_counted(rig):
    tenant = rig.tenant("likely")

    def over():
        return rig.metric("bursar_over_hold_total", tenant=tenant, unit="tokens")

    # Of the first eight it is held what they may cost: a token a byte, and the longest answer.
    ceiling = len(chat_body()) + 10
    for _ in range(7):
        rig.spend(tenant, 8)
    assert over() == 0
    rig.spend(tenant, ceiling + 5)
    assert over() == 5
    # What is likely of the next: at least the largest of those. It is no more than the ceiling.
    rig.spend(tenant, ceiling)
    assert over() == 5
    rig.spend(tenant, ceiling + 37)
    assert over() == 42
