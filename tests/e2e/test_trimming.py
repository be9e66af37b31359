"""Long conversations that a tier trims: the official SDKs send them, and the upstream sees a valid shorter one."""

import json

import anthropic
import openai
import pytest

from harness import wires
from harness.config import TIERS, budget, plugin_config
from harness.rig import HOLDING, MODES
from harness.upstream import TEST_ID, TEST_USAGE

TO_TOKENS = 500     # 2,000 bytes at first
PLANS = {"ample": {"budget": budget(1_000_000)}, "small": {"budget": budget(6_000)}}
CLAUDE = [{"name": "top", "model": "claude-big"}, {"name": "low", "model": "claude-small", "below": 0.5}]
TOOL = {"name": "weather", "description": "Tells the weather.", "input_schema": {"type": "object", "properties": {}}}
FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
SYSTEM = {"role": "system", "content": "Antworte knapp. 简短回答。"}


def trims(tiers):
    return [tiers[0]] + [dict(tier, trim={"to_tokens": TO_TOKENS}) for tier in tiers[1:]]


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    config = plugin_config(PLANS, ladders=[{"tiers": trims(TIERS)}, {"tiers": trims(CLAUDE)}])
    del config["tiers"]
    return start_rig(config, mode=request.param)


@pytest.fixture(scope="module")
def lower(rig):
    tenant = rig.tenant("ample")
    rig.spend(tenant, 900_000)
    return tenant


def openai_turn(at):
    """A question, two calls of a tool, their results, an answer."""
    calls = [{"id": f"call_{at}_{which}", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
             for which in "ab"]
    return [{"role": "user", "content": f"Wie ist das Wetter {at}?"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            *[{"role": "tool", "tool_call_id": call["id"], "content": '{"sky": "grey"}'} for call in calls],
            {"role": "assistant", "content": f"Grau {at}."}]


def anthropic_turn(at):
    call = {"type": "tool_use", "id": f"toolu_{at}", "name": "weather", "input": {"where": f"Köln {at}"}}
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "grey"}]}
    return [{"role": "user", "content": f"Wie ist das Wetter {at}?"},
            {"role": "assistant", "content": [{"type": "text", "text": "Moment."}, call]},
            {"role": "user", "content": [result]},
            {"role": "assistant", "content": [{"type": "text", "text": f"Grau {at}."}]}]


def talk(turn, count, before=()):
    return [*before, *(message for at in range(count) for message in turn(at)), {"role": "user", "content": "Und morgen?"}]


def is_framed_rightly(rig, request):
    """No length that is not the body's, and nothing beyond the body."""
    assert request.surplus == b""
    if rig.mode == HOLDING:
        assert request.all("content-length") == [str(len(request.body))]
    else:
        assert (request.all("content-length"), request.all("transfer-encoding")) == ([], ["chunked"])


def is_shorter(sent, whole, turn_length, fixed=0):
    """What was sent begins with what always stays, goes on with whole turns, and ends as the conversation does."""
    kept = len(sent) - fixed
    assert kept < len(whole) - fixed
    assert (kept - 1) % turn_length == 0
    assert sent == whole[:fixed] + whole[len(whole) - kept:]
    assert sent[fixed]["role"] == "user"


def client(rig, tenant, test_id):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{rig.envoy.port}/v1", api_key="test", max_retries=0,
                         default_headers={"x-tenant-id": tenant, TEST_ID: test_id, TEST_USAGE: "31,11"})


@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_sdks_long_conversation_reaches_the_upstream_shorter(rig, lower, stream):
    whole, test_id = talk(openai_turn, 12, [SYSTEM]), rig.new_id()
    raw = client(rig, lower, test_id).chat.completions.with_raw_response.create(
        model="gpt-4o", messages=whole, tools=[FUNCTION], max_tokens=50, stream=stream)
    parsed = raw.parse()
    text = "".join(part.choices[0].delta.content or "" for part in parsed) if stream \
        else parsed.choices[0].message.content
    assert text.startswith("Es grüßt")
    request, = rig.upstream.of(test_id)
    is_framed_rightly(rig, request)
    sent = request.json()
    is_shorter(sent["messages"], whole, 5, fixed=1)
    assert (sent["model"], sent["tools"]) == ("gpt-4o-mini", [FUNCTION])
    assert len(request.body) / 4 <= TO_TOKENS + 10    # the longer name of the model, and the question for usage
    gone = len(whole) - len(sent["messages"])
    assert raw.headers["x-bursar-trimmed-messages"] == str(gone)
    entry = rig.envoy.logged(test_id)
    assert (entry["trimmed_messages"], entry["charged"], entry["settled_by"]) == (gone, 42, "usage")


@pytest.mark.parametrize("stream", [False, True])
def test_the_anthropic_sdks_long_conversation_reaches_the_upstream_shorter(rig, lower, stream):
    whole = talk(anthropic_turn, 12)
    test_id = rig.new_id(wires.message((31, 11), stream))
    sdk = anthropic.Anthropic(base_url=f"http://127.0.0.1:{rig.envoy.port}", api_key="test", max_retries=0,
                              default_headers={"x-tenant-id": lower, TEST_ID: test_id})
    raw = sdk.messages.with_raw_response.create(model="claude-big", messages=whole, system=SYSTEM["content"],
                                                tools=[TOOL], max_tokens=50, stream=stream)
    parsed = raw.parse()
    if stream:
        assert any(event.type == "message_stop" for event in parsed)
    else:
        assert parsed.content[0].text == wires.TEXT
    request, = rig.upstream.of(test_id)
    is_framed_rightly(rig, request)
    sent = request.json()
    is_shorter(sent["messages"], whole, 4)
    assert (sent["model"], sent["system"], sent["tools"]) == ("claude-small", SYSTEM["content"], [TOOL])
    assert raw.headers["x-bursar-trimmed-messages"] == str(len(whole) - len(sent["messages"]))
    assert rig.envoy.logged(test_id)["charged"] == 42


def body_of(messages, model="gpt-4o", **rest):
    return json.dumps({"messages": messages, "model": model, "max_tokens": 50, **rest}).encode()


# Only the model's bytes change: digits, key order and white space stay. A stale content-length would make the rest
# of a body the next request.
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_connection_is_reused_cleanly_whatever_was_left_out(rig, lower, framing):
    full = rig.tenant("ample")
    bodies = [body_of(talk(openai_turn, count)) for count in (12, 0, 30, 12)]
    with rig.connect() as connection:
        served = [(tenant, body, rig.post(tenant, body, on=connection, framing=framing, pieces=cut(body)))
                  for body in bodies for tenant in (lower, full)]
    assert len({rig.seen(response).connection for _, _, response in served}) <= 2   # one for each cluster
    for tenant, body, response in served:
        request = rig.seen(response)
        assert request.surplus == b""
        if tenant == full or body == bodies[1]:
            assert len(request.body) == len(body) + (0 if tenant == full else len("-mini"))
            assert response.header("x-bursar-trimmed-messages") is None
        else:
            is_shorter(request.json()["messages"], json.loads(body)["messages"], 5)
            # Every byte that stays is as it was.
            head, tail = b'{"messages": [', b'"model": '
            assert request.body.startswith(head)
            kept = request.body[len(head):request.body.index(tail)]
            assert body[:body.index(tail)].endswith(kept)


def cut(body):
    return [body[at:at + 1_000] for at in range(0, len(body), 1_000)]


def test_a_conversation_that_trickles_in_is_trimmed_alike(rig, lower):
    body = body_of(talk(openai_turn, 12))
    whole = rig.post(lower, body)
    pieces = [body[at:at + 97] for at in range(0, len(body), 97)]
    trickled = rig.post(lower, body, pieces=pieces, edges=True)
    assert rig.seen(trickled).body == rig.seen(whole).body


def test_only_what_is_sent_is_charged_for(rig):
    tenant = rig.tenant("small")
    rig.spend(tenant, 3_500)
    body = body_of(talk(openai_turn, 30))
    assert len(body) > 6_000     # more than the whole budget
    response = rig.post(tenant, body, usage=(20, 5))
    assert response.status == 200, response
    sent = len(rig.seen(response).body) - len("gpt-4.1-mini") + len("gpt-4o")
    assert response.header("x-ratelimit-remaining-tokens") == str(6_000 - 3_500 - sent - 50)
    assert rig.log(response)["remaining"] == 6_000 - 3_500 - 25
    total = rig.metric("bursar_trimmed_messages_total", tenant=tenant)
    assert total == int(response.header("x-bursar-trimmed-messages"))
