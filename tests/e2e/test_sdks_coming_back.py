"""Every provider's official SDK, unmodified and at its defaults, whose provider says no: its own retry is served by the next tier."""

import json
import time

import pytest

from harness import answers, sdks, wires
from harness.config import budget, plugin_config
from harness.rig import MODES
from harness.upstream import TEST_ID

REPORTED = (9, 7)
WAIT = "20"   # seconds that the provider says: nobody is to wait for them
OPENAI = {"error": {"message": f"Rate limit reached for the model on tokens per min (TPM). Please try again in {WAIT}s.",
                    "type": "tokens", "param": None, "code": "rate_limit_exceeded"}}
AZURE = {"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have exceeded the token rate limit "
                                             f"of your pricing tier. Please retry after {WAIT} seconds."}}
ANTHROPIC = {"type": "error", "error": {"type": "rate_limit_error", "message": "This request would exceed your rate limit."}}
OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
GOOGLE = {"error": {"code": 429, "message": "Resource has been exhausted.", "status": "RESOURCE_EXHAUSTED", "details": [
    {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{WAIT}s"}]}}
AMAZON = {"message": "Too many requests, please wait before trying again."}
LATER = [("retry-after", WAIT), ("retry-after-ms", f"{WAIT}000")]


def refusal(body, headers=(), status=429):
    return answers.Answer(json.dumps(body).encode(), status=status,
                          headers=[("content-type", "application/json"), *headers])


def refusals(sdk):
    """As the SDK's provider says no."""
    if isinstance(sdk, sdks.BedrockConverse | sdks.AnthropicBedrock):
        return refusal(AMAZON, [("x-amzn-errortype", "ThrottlingException")])
    if isinstance(sdk, sdks.Gemini):
        return refusal(GOOGLE)
    if isinstance(sdk, sdks.Anthropic):
        return refusal(ANTHROPIC, [("retry-after", WAIT), ("x-should-retry", "true")])
    if isinstance(sdk, sdks.Azure):
        return refusal(AZURE, LATER)
    return refusal(OPENAI, LATER + [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", f"{WAIT}s")])


def chat(reported, stream):
    usage = answers.usage(*reported)
    if stream:
        return answers.sse_answer("m", usage, words=wires.WORDS)
    return answers.Answer(answers.completion("m", usage, wires.TEXT), headers=[("content-type", "application/json")])


def response(reported, stream):
    given, made = reported
    text = {"type": "output_text", "text": wires.TEXT, "annotations": []}
    whole = {"id": "resp_1", "object": "response", "created_at": 1700000000, "status": "completed", "model": "m", "output": [
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [text]}],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
        "usage": {"input_tokens": given, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": made,
                  "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": given + made}}
    if not stream:
        return answers.Answer(json.dumps(whole).encode(), headers=[("content-type", "application/json")])
    delta = {"type": "response.output_text.delta", "item_id": "msg_1", "output_index": 0, "content_index": 0,
             "delta": wires.TEXT, "sequence_number": 1, "logprobs": []}
    last = {"type": "response.completed", "sequence_number": 2, "response": whole}
    return answers.Answer([b"event: %s\n" % each["type"].encode() + answers.event(each) for each in (delta, last)],
                          headers=[("content-type", "text/event-stream")], framing="chunked")


def served(sdk, stream):
    if isinstance(sdk, sdks.OpenAiResponses):
        return response(REPORTED, stream)
    if isinstance(sdk, sdks.OpenAiChat):
        return chat(REPORTED, stream)
    wire = sdk.wire or wires.message
    return wire(REPORTED, stream)


CALLS = [pytest.param(sdk, stream, id=f"{sdk}-{'stream' if stream else 'whole'}")
         for sdk in sdks.ALL if sdk.is_exchangeable for stream in sdk.forms]


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    config = plugin_config({"ample": {"budget": budget(1_000_000)}}, ladders=sdks.ladders())
    del config["tiers"]
    return start_rig(config, mode=request.param)


def ask(rig, sdk, stream, answer):
    """Has the SDK call, by a credential of its own: (test id, what it got or the error, seconds)."""
    test_id = rig.new_id(answer)
    # No SDK sets the one of these that it gets.
    credential = "x-api-key" if isinstance(sdk, sdks.OpenAi) else "openai-project"
    headers = {TEST_ID: test_id, "x-tenant-id": rig.tenant("ample"), credential: test_id}
    since = time.monotonic()
    try:
        got = sdk.ask(f"http://127.0.0.1:{rig.envoy.port}", headers, stream)
    except sdk.errors[429][0] as error:
        got = error
    return test_id, got, time.monotonic() - since


def models(rig, test_id):
    """The models of the requests that the upstream got, in their order."""
    def model(request):
        in_path = sdks.path_and_model(request.target)[1]
        return in_path or request.json()["model"]

    return [model(request) for request in rig.upstream.of(test_id)]


@pytest.mark.parametrize("sdk,stream", CALLS)
def test_a_call_that_the_provider_refuses_succeeds_on_the_next_tier(rig, sdk, stream, record_property):
    test_id, got, seconds = ask(rig, sdk, stream, [refusals(sdk), served(sdk, stream)])
    record_property("seconds", round(seconds, 2))
    if not sdk.comes_back:
        # It does not ask again by itself; the application's next call is served.
        assert isinstance(got, sdk.errors[429][0]) and len(models(rig, test_id)) == 1
        return
    assert not isinstance(got, Exception), got
    assert (got.text, got.usage) == (wires.TEXT, REPORTED)
    assert models(rig, test_id) == [sdk.top, sdk.lower]
    assert (got.headers["x-bursar-tier"], got.headers["x-bursar-reason"]) == ("low", "upstream_limited")
    assert rig.envoy.logged(test_id)["status"] in (200, 429)


@pytest.mark.parametrize("sdk,stream", [call for call in CALLS if call.values[0].name == "anthropic"])
def test_an_overloaded_provider_is_left_for_the_next_tier_too(rig, sdk, stream):
    test_id, got, _ = ask(rig, sdk, stream, [refusal(OVERLOADED, status=529), served(sdk, stream)])
    assert models(rig, test_id) == [sdk.top, sdk.lower]
    assert got.text == wires.TEXT
