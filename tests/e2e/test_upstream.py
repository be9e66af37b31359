"""Upstreams that say no, in a real Envoy with two workers."""

import json

import pytest

from harness import answers
from harness.config import BY_HEADER, TIERS
from harness.rig import MODES, chat_body
from harness.wait import in_parallel, let_pass, until

WAIT = 2    # seconds that the upstream says, and what is added to it at the most
LATER = 0.3
USAGE = answers.usage(10, 5)
CONFIG = {
    "tenant": BY_HEADER,
    "tiers": TIERS,
    "tenants": {"acme": {}, "loyal": {"never_downgrade": True}, "floored": {"floor": "default"}},
}
DEFAULT = ("default", "gpt-4o", "admit", None)
STANDARD = ("standard", "gpt-4.1-mini", "downgrade", "upstream_limited")
BACK = ("default", "gpt-4o", "admit", "upstream_limited")


@pytest.fixture(params=MODES)
def rig(start_rig, request):
    return start_rig(CONFIG, mode=request.param)


def limited(status=429, headers=(("retry-after", WAIT),), body=None):
    answer = answers.error(status) if body is None else answers.Answer(
        json.dumps(body).encode(), status=status, headers=[("content-type", "application/json")])
    answer.headers.extend(headers)
    return answer


def pressed(rig, tier="default", model="gpt-4o"):
    return rig.metric("bursar_tier_pressed", tier=tier, model=model)


@pytest.mark.parametrize("stream", [False, True])
def test_a_tier_is_left_by_all_workers_and_come_back_to_by_one_request(rig, stream):
    def ask(tenant):
        return rig.chat(tenant, stream=stream)

    assert ask("acme").told == DEFAULT
    first = rig.chat("acme", answer=limited(), stream=stream)
    assert (first.status, first.told) == (429, BACK)
    entry = rig.log(first)
    assert (entry["reason"], entry["upstream_refusal"], entry["charged"]) == ("upstream_limited", "rate_limit", 0)
    assert rig.metric("bursar_upstream_refusals_total", tier="default", model="gpt-4o", kind="rate_limit") == 1
    assert pressed(rig) == 1
    let_pass(0.1)   # as its caller was told to, at the least
    served = in_parallel(8, lambda _: ask("acme"), range(32))
    assert {each.told for each in served} == {STANDARD}
    assert {rig.seen(each).json()["model"] for each in served} == {"gpt-4.1-mini"}
    # One that must not be lowered gets whatever the upstream says.
    again = rig.chat("loyal", answer=limited(headers=[("retry-after", "1")]))
    assert (again.status, again.all("retry-after"), again.all("x-should-retry")) == (429, ["1"], [])
    let_pass(WAIT + LATER)
    gate = answers.Gate()
    slow = answers.json_answer("gpt-4o", USAGE, before=gate.passed)
    test_id = rig.new_id(slow)
    with rig.connect() as probe:
        rig.send(probe, test_id, "acme", [chat_body()])
        gate.wait_until_reached()
        let_pass(0.05)
        served = in_parallel(8, lambda _: ask("acme"), range(32))
        assert {each.told for each in served} == {STANDARD}
        gate.open()
        assert probe.read().told == DEFAULT
    until(lambda: pressed(rig) == 0, "the tier to be healed")
    let_pass(0.05)
    assert {each.told for each in in_parallel(8, lambda _: ask("acme"), range(32))} == {DEFAULT}


def test_where_all_tiers_say_no_the_upstreams_own_answer_goes_back(start_rig):
    rig = start_rig(CONFIG)
    statuses = []
    for _ in range(5):
        response = rig.chat("acme", answer=limited(headers=[("retry-after", "30")]))
        statuses.append((response.header("x-bursar-tier"), response.header("retry-after")))
        let_pass(0.1)
    assert statuses == [("default", "1"), ("standard", "1"), ("compact", "30"), ("default", "30"), ("default", "30")]


@pytest.mark.parametrize("status,kind", [(429, "rate_limit"), (503, "overloaded"), (529, "overloaded")])
def test_a_no_of_the_upstream_presses_and_one_of_the_proxy_does_not(start_rig, status, kind):
    rig = start_rig(CONFIG)
    for _ in range(4):
        assert rig.chat("acme", answer=answers.Reset()).status == 503
    assert rig.chat("acme").told == DEFAULT
    refused = rig.chat("acme", answer=limited(status, headers=()))
    assert (refused.status, refused.told) == (status, BACK)
    assert rig.log(refused)["upstream_refusal"] == kind
    let_pass(0.1)
    assert rig.chat("acme").told == STANDARD
    assert rig.chat("floored").told == DEFAULT


def test_an_error_in_a_stream_before_any_output_presses(start_rig):
    rig = start_rig(CONFIG)
    error = answers.event({"error": {"message": "no room", "type": "server_error", "code": "rate_limit_exceeded"}})
    answer = answers.Answer([error], headers=[("content-type", "text/event-stream")], framing="chunked")
    first = rig.chat("acme", answer=answer, stream=True)
    assert (first.status, rig.log(first)["upstream_refusal"]) == (200, "rate_limit")
    let_pass(0.1)
    assert rig.chat("acme", stream=True).told == STANDARD


def test_money_that_is_spent_at_the_provider_is_told_as_such(start_rig):
    rig = start_rig(CONFIG)
    spent = {"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "param": None,
                       "code": "insufficient_quota"}}
    first = rig.chat("acme", answer=limited(body=spent, headers=[("retry-after", "1")]))
    assert rig.log(first)["upstream_refusal"] == "quota"
    assert rig.metric("bursar_upstream_refusals_total", kind="quota") == 1
    let_pass(WAIT + LATER)
    assert rig.chat("acme").told == STANDARD


def test_a_callers_own_key_presses_nobody_else(start_rig):
    rig = start_rig(dict(CONFIG, credentials="own"))
    mine, yours = [("x-api-key", "mine")], [("x-api-key", "yours")]
    refused = limited(headers=[("retry-after", "30")])
    test_id = rig.new_id(refused)
    with rig.connect() as connection:
        connection.send(b"")
        rig.send(connection, test_id, "acme", [chat_body()], headers=mine)
        assert connection.read().status == 429
    let_pass(0.1)
    assert rig.chat("acme", headers=yours).told == DEFAULT
