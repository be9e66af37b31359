"""The official openai SDK, unmodified, behaves as against the real API."""

import itertools
import time

import openai
import pytest

from harness import answers
from harness.config import bucket, budget, plugin_config
from harness.rig import MODES
from harness.upstream import TEST_ID, TEST_USAGE

PLANS = {
    "plain": {"budget": budget(1_000_000)},
    "refilling": {"bucket": bucket(1_000, "2s")},
    "daily": {"budget": budget(1_000, "day")},
    "capped": {"bucket": bucket(100_000, "1h", burst=200)},
}
HELLO = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param)


class Caller:
    """An SDK client for one tenant, and the answers that it saw on the wire: (moment, status, headers)."""

    numbers = itertools.count()

    def __init__(self, rig, tenant):
        self.id = f"sdk{next(self.numbers)}"
        self.wire = []
        watching = openai.DefaultHttpxClient(event_hooks={"response": [self._saw]})
        self.client = openai.OpenAI(
            base_url=f"http://127.0.0.1:{rig.envoy.port}/v1", api_key="test", http_client=watching,
            default_headers={"x-tenant-id": tenant, TEST_ID: self.id})

    def _saw(self, response):
        self.wire.append((time.monotonic(), response.status_code, dict(response.headers)))

    def statuses(self):
        return [status for _, status, _ in self.wire]

    def chat(self, usage="10,5", **options):
        return self.client.chat.completions.create(
            model="gpt-4o", messages=HELLO, max_tokens=10, extra_headers={TEST_USAGE: usage}, **options)


def test_a_normal_call_is_answered_and_charged(rig):
    tenant = rig.tenant("plain")
    caller = Caller(rig, tenant)
    answer = caller.chat(usage="31,11")
    assert answer.choices[0].message.content.startswith("Es grüßt")
    assert answer.usage.total_tokens == 42
    rig.envoy.logged(caller.id)
    assert rig.remaining(tenant) == 1_000_000 - 42


def test_a_downgrade_is_seen_in_the_answer_and_in_the_raw_headers(rig):
    tenant = rig.tenant("plain")
    rig.spend(tenant, 900_000)
    raw = Caller(rig, tenant).client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO)
    assert raw.headers["x-bursar-decision"] == "downgrade"
    assert raw.headers["x-bursar-requested-model"] == "gpt-4o"
    assert raw.parse().model == "gpt-4o-mini"


def test_a_streamed_call_gets_no_chunk_without_choices(rig):
    caller = Caller(rig, rig.tenant("plain"))
    chunks = list(caller.chat(stream=True, usage="31,11"))
    assert all(chunk.choices for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("Es grüßt")
    assert rig.envoy.logged(caller.id)["charged"] == 42


def test_a_streamed_call_that_asks_for_usage_gets_it(rig):
    caller = Caller(rig, rig.tenant("plain"))
    chunks = list(caller.chat(stream=True, usage="31,11", stream_options={"include_usage": True}))
    assert chunks[-1].usage.total_tokens == 42
    assert rig.envoy.logged(caller.id)["charged"] == 42


# SDKs go by retry-after, retry-after-ms and x-should-retry, each in its own way.
@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_on_throttle_the_sdk_waits_what_we_said_and_then_succeeds(rig, stream):
    tenant = rig.tenant("refilling")
    rig.spend(tenant, 1_800)
    caller = Caller(rig, tenant)
    answer = caller.chat(stream=stream)
    assert list(answer) if stream else answer.usage.total_tokens == 15
    assert caller.statuses() == [429, 200]
    (refused, _, headers), (served, _, _) = caller.wire
    assert served - refused >= int(headers["retry-after-ms"]) / 1000 > 0.5
    assert [each.header("x-stainless-retry-count") for each in rig.upstream.of(caller.id)] == ["1"]


def test_a_spent_budget_raises_at_once_and_is_not_retried(rig):
    tenant = rig.tenant("daily")
    rig.spend(tenant, 1_000)
    caller = Caller(rig, tenant)
    with pytest.raises(openai.RateLimitError) as raised:
        caller.chat()
    assert raised.value.code == "insufficient_quota"
    assert caller.statuses() == [429]


def test_a_request_larger_than_the_bucket_raises_at_once_and_is_not_retried(rig):
    caller = Caller(rig, rig.tenant("capped"))
    with pytest.raises(openai.RateLimitError) as raised:
        caller.client.chat.completions.create(model="gpt-4o", messages=HELLO, max_tokens=5_000)
    assert raised.value.code == "request_exceeds_burst"
    assert caller.statuses() == [429]


@pytest.mark.parametrize("tenant,error,code", [
    ("", openai.AuthenticationError, "tenant_required"),
    ("nobody", openai.PermissionDeniedError, "tenant_unknown"),
])
def test_an_unknown_caller_raises_what_the_real_api_would(rig, tenant, error, code):
    with pytest.raises(error) as raised:
        Caller(rig, tenant).chat()
    assert raised.value.code == code


def test_the_list_of_models_needs_no_tenant(rig):
    listing = b'{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1,"owned_by":"openai"}]}'
    rig.upstream.routes["/v1/models"] = answers.Answer(listing, headers=[("content-type", "application/json")])
    assert [model.id for model in Caller(rig, "nobody").client.models.list()] == ["gpt-4o"]
