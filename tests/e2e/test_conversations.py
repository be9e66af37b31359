"""Conversations that stay at the tier where they are, over turns of the official SDKs."""

import anthropic
import openai
import pytest

from harness import answers, wires
from harness.config import TIERS, budget, plugin_config
from harness.rig import MODES, chat_body
from harness.upstream import TEST_ID, TEST_USAGE

INITIAL = 1_000_000
NAME = "x-conversation-id"
PLANS = {
    "begun": {"budget": budget(INITIAL), "sticky": {}},
    "named": {"budget": budget(INITIAL), "sticky": {"header": NAME, "keep": 0.8}},
    "plain": {"budget": budget(INITIAL)},
}
CLAUDE = [{"name": "default", "model": "claude-big"}, {"name": "standard", "model": "claude-small", "below": 0.5}]


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    config = plugin_config(PLANS, ladders=[{"tiers": TIERS}, {"tiers": CLAUDE}])
    del config["tiers"]
    return start_rig(config, mode=request.param)


class OpenAi:
    """A conversation by the openai SDK: each turn sends all that was said before."""

    def __init__(self, rig, tenant, words, model="gpt-4o"):
        self.rig, self.tenant, self.model = rig, tenant, model
        self.said = [{"role": "system", "content": "Antworte knapp."}, {"role": "user", "content": words}]
        self.headers = {"x-tenant-id": tenant}

    def turn(self, usage=(0, 0)):
        test_id = self.rig.new_id()
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.rig.envoy.port}/v1", api_key="test", max_retries=0)
        headers = dict(self.headers, **{TEST_ID: test_id, TEST_USAGE: ",".join(map(str, usage))})
        raw = client.chat.completions.with_raw_response.create(
            model=self.model, messages=self.said, max_tokens=10, extra_headers=headers)
        self.goes_on(raw.parse().choices[0].message.content)
        return told(self.rig, test_id, raw.headers)

    def goes_on(self, answer):
        self.said += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Und dann?"}]


class Anthropic(OpenAi):
    """The same by the anthropic SDK, with the marks for the provider's cache that move along."""

    def turn(self, usage=(0, 0)):
        test_id = self.rig.new_id(wires.message(usage, False))
        client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{self.rig.envoy.port}", api_key="test", max_retries=0)
        marked = [dict(message) for message in self.said[1:]]
        marked[-1]["content"] = [{"type": "text", "text": marked[-1]["content"], "cache_control": {"type": "ephemeral"}}]
        raw = client.messages.with_raw_response.create(
            model=self.model, messages=marked, max_tokens=10, system=self.said[0]["content"],
            extra_headers=dict(self.headers, **{TEST_ID: test_id}))
        self.goes_on(raw.parse().content[0].text)
        return told(self.rig, test_id, raw.headers)


def told(rig, test_id, headers):
    """Tier and reason, once the access log has been seen to say the same."""
    entry = rig.envoy.logged(test_id)
    said = headers["x-bursar-tier"], headers.get("x-bursar-reason")
    assert (entry["tier"], entry["reason"] or None) == said
    request, = rig.upstream.of(test_id)
    assert request.json()["model"] == headers["x-bursar-model"]
    return said


SDKS = [pytest.param(OpenAi, "gpt-4o", id="openai"), pytest.param(Anthropic, "claude-big", id="anthropic")]


@pytest.mark.parametrize("sdk,model", SDKS)
def test_a_conversation_under_way_keeps_its_model_where_a_new_one_does_not(rig, sdk, model):
    tenant = rig.tenant("begun")
    first = sdk(rig, tenant, "Erzähl mir von Köln.", model)
    assert first.turn() == ("default", None)
    rig.spend(tenant, 600_000)
    assert first.turn() == ("default", "conversation")
    second = sdk(rig, tenant, "Erzähl mir von Bonn.", model)
    assert second.turn() == ("standard", "budget_low")
    assert [first.turn() for _ in range(5)] == [("default", "conversation")] * 5
    # Half of the mark.
    rig.spend(tenant, 150_001)
    assert first.turn() == ("standard", "budget_low")


@pytest.mark.parametrize("sdk,model", SDKS)
def test_a_conversation_that_was_downgraded_stays_down(rig, sdk, model):
    tenant, gate = rig.tenant("begun"), answers.Gate()
    rig.spend(tenant, 450_000)
    # A request in flight holds so much that what remains is under the mark.
    answer = answers.json_answer("gpt-4o", answers.usage(0, 0), before=gate.passed)
    test_id = rig.new_id(answer)
    with rig.connect() as connection:
        rig.send(connection, test_id, tenant, [chat_body(max_tokens=100_000)])
        gate.wait_until_reached()
        downgraded = sdk(rig, tenant, "Erzähl mir von Köln.", model)
        assert downgraded.turn() == ("standard", "budget_low")
        gate.open()
        assert connection.read().status == 200
    rig.envoy.logged(test_id)
    assert sdk(rig, tenant, "Erzähl mir von Bonn.", model).turn() == ("default", None)
    assert [downgraded.turn() for _ in range(3)] == [("standard", "conversation")] * 3
    counted = rig.metric("bursar_downgraded_total", tenant=tenant, tier="standard", reason="conversation")
    assert counted == 3


def test_a_header_names_a_conversation(rig):
    tenant = rig.tenant("named")
    for name in ("a", "b"):
        talk = OpenAi(rig, tenant, "Hallo.")
        talk.headers[NAME] = name
        assert talk.turn() == ("default", None)
    rig.spend(tenant, 550_000)
    for name, expected in [("a", ("default", "conversation")), ("c", ("standard", "budget_low"))]:
        talk = OpenAi(rig, tenant, "Etwas anderes.")
        talk.headers[NAME] = name
        assert talk.turn() == expected
    # 0.8 of the mark.
    rig.spend(tenant, 50_001)
    talk.headers[NAME] = "b"
    assert talk.turn() == ("standard", "budget_low")


def test_whatever_the_chunks_it_is_the_same_conversation(rig):
    tenant = rig.tenant("begun")
    said = [{"role": "user", "content": "Grüße! 你好 😀"}]
    first = rig.post(tenant, chat_body(messages=said), usage=(0, 0))
    assert first.header("x-bursar-tier") == "default"
    rig.spend(tenant, 600_000)
    said += [{"role": "assistant", "content": "你好!"}, {"role": "user", "content": "Und dann?"}]
    body = chat_body(messages=said)
    for size in (1, 7, 64):
        pieces = [body[at:at + size] for at in range(0, len(body), size)]
        for framing in ("length", "chunked"):
            response = rig.post(tenant, body, usage=(0, 0), pieces=pieces, framing=framing, edges=size > 1)
            assert (response.header("x-bursar-tier"), response.header("x-bursar-reason")) == ("default", "conversation")
            assert rig.seen(response).body == body


def test_tenants_without_it_go_by_their_marks(rig):
    tenant = rig.tenant("plain")
    talk = OpenAi(rig, tenant, "Hallo.")
    assert talk.turn() == ("default", None)
    rig.spend(tenant, 600_000)
    assert talk.turn() == ("standard", "budget_low")
