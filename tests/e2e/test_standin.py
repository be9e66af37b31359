"""The stand-in LLM speaks every API that the README names: the providers' SDKs read it, and so does bursar, to the token."""

import base64
import http.client
import json
import re
import subprocess
import sys
import urllib.parse

import pytest

from harness import aimock, envoy, sdks
from harness.config import budget, plugin_config
from harness.rig import HOLDING, MODES
from harness.upstream import TEST_ID

INITIAL = 1_000_000
PROMPT = -(-len(aimock.PROMPT) // 4)   # tokens of a bare text; a message costs 4 more
CALLS = [pytest.param(sdk, stream, id=f"{sdk}-{'stream' if stream else 'whole'}")
         for sdk in sdks.ALL if not str(sdk).endswith("_counted") for stream in sdk.forms]
INVALID = [call for call in CALLS if call.values[0].can_be_invalid]
# What InvokeModel takes and gives for each vendor: (model, body, where the text is in the answer, in an event).
INVOKED = {
    "anthropic": ("us.anthropic.claude-haiku-4-5-20251001-v1:0",
                  {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 40, "messages": [{"role": "user", "content": "hello"}]},
                  ("content", 0, "text"), ("delta", "text")),
    "nova": ("us.amazon.nova-pro-v1:0", {"inferenceConfig": {"maxTokens": 40}, "messages": [{"role": "user", "content": [{"text": "hello"}]}]},
             ("output", "message", "content", 0, "text"), ("contentBlockDelta", "delta", "text")),
    "titan": ("amazon.titan-text-express-v1", {"inputText": "hello", "textGenerationConfig": {"maxTokenCount": 40}},
              ("results", 0, "outputText"), ("outputText",)),
    "llama": ("us.meta.llama3-3-70b-instruct-v1:0", {"prompt": "hello", "max_gen_len": 40}, ("generation",), ("generation",)),
    "mistral": ("mistral.mistral-large-2402-v1:0", {"prompt": "hello", "max_tokens": 40}, ("outputs", 0, "text"), ("outputs", 0, "text")),
}


@pytest.fixture(scope="module")
def standin():
    process = subprocess.Popen([sys.executable, str(envoy.ROOT / "envoy/standin.py"), "--port", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield int(re.fullmatch(r"stand-in LLM on http://127\.0\.0\.1:(\d+)\n", process.stdout.readline())[1])
    process.terminate()
    _, printed = process.communicate(timeout=30)
    assert "Traceback" not in printed, printed


class Bursar:
    """Envoy with bursar before the stand-in, and a tenant with a budget for each test."""

    def __init__(self, folder, standin, mode):
        models = [ladder for ladder in sdks.ladders()]
        named = {tier["model"] for ladder in models for tier in ladder["tiers"]}
        models += [{"tiers": [{"name": "one", "model": model}]} for model, *_ in INVOKED.values() if model not in named]
        config = plugin_config({"ample": {"budget": budget(INITIAL)}}, ladders=models)
        del config["tiers"]
        config["tenant"]["unknown"] = {"plan": "ample"}
        self.envoy = envoy.Envoy(folder, envoy.document(config, standin, hold_headers=mode == HOLDING))
        self.envoy.wait_ready()

    def is_charged(self, test_id, usage):
        entry = self.envoy.logged(test_id)
        assert (entry["input_tokens"], entry["output_tokens"], entry["settled_by"]) == (*usage, "usage"), entry
        assert entry["charged"] == sum(usage)


@pytest.fixture(scope="module", params=MODES)
def bursar(request, tmp_path_factory, standin):
    started = Bursar(tmp_path_factory.mktemp("envoy"), standin, request.param)
    yield started
    started.envoy.stop()


def usage_of(sdk, got):
    """What an honest provider counts: a quarter of the prompt's bytes, and a token for each word of the answer."""
    if isinstance(sdk, sdks.OpenAiEmbeddings):
        return PROMPT, 0
    return PROMPT + (0 if isinstance(sdk, sdks.OpenAiCompletions) else 4), len(got.text.split())


def read_rightly(sdk, got):
    assert got.usage == usage_of(sdk, got)
    if not isinstance(sdk, sdks.OpenAiEmbeddings):
        assert got.usage[1] == sdks.LIMIT and got.text.startswith("a budget is a promise"), got


@pytest.mark.parametrize("sdk,stream", CALLS)
def test_every_sdk_reads_it(standin, sdk, stream):
    read_rightly(sdk, sdk.ask(f"http://127.0.0.1:{standin}", {}, stream))


@pytest.mark.parametrize("sdk,stream", INVALID)
def test_every_sdk_raises_its_own_error_for_a_body_that_is_wrong(standin, sdk, stream):
    with pytest.raises(sdk.errors[400][0]) as raised:
        sdk.ask(f"http://127.0.0.1:{standin}", {}, stream, limit=sdks.NO_LIMIT)
    assert "expected an integer of at least 1" in str(raised.value)


@pytest.mark.parametrize("sdk,stream", CALLS)
def test_bursar_charges_what_every_sdk_reads(bursar, sdk, stream):
    test_id = f"{sdk}-{stream}"
    got = sdk.ask(f"http://127.0.0.1:{bursar.envoy.port}", {TEST_ID: test_id, "x-tenant-id": test_id}, stream)
    read_rightly(sdk, got)
    bursar.is_charged(test_id, got.usage)


# --- what no SDK of ours asks for ---


def post(port, path, body, headers=()):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **dict(headers)})
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, data


def at(value, path):
    for step in path:
        value = value.get(step, {}) if isinstance(value, dict) else value[step]
    return value or ""


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("vendor", INVOKED)
def test_invoke_model_has_each_vendors_shape_and_is_charged(bursar, vendor, stream):
    model, body, in_whole, in_event = INVOKED[vendor]
    test_id = f"invoke-{vendor}-{stream}"
    client = sdks.ALL[-1].client(f"http://127.0.0.1:{bursar.envoy.port}", {TEST_ID: test_id, "x-tenant-id": test_id})
    if stream:
        answer = client.invoke_model_with_response_stream(modelId=model, body=json.dumps(body))
        chunks = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
        text = "".join(at(chunk, in_event) for chunk in chunks)
        metrics = chunks[-1]["amazon-bedrock-invocationMetrics"]
        usage = metrics["inputTokenCount"], metrics["outputTokenCount"]
    else:
        answer = client.invoke_model(modelId=model, body=json.dumps(body))
        text = at(json.loads(answer["body"].read()), in_whole)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        usage = int(headers["x-amzn-bedrock-input-token-count"]), int(headers["x-amzn-bedrock-output-token-count"])
    assert len(text.split()) == usage[1] == 40 and usage[0] in (PROMPT, PROMPT + 4)
    bursar.is_charged(test_id, usage)


GEMINI = {"contents": [{"parts": [{"text": "hello"}]}], "generationConfig": {"maxOutputTokens": 30}}
CHAT = {"model": "gpt-4o", "max_tokens": 30, "messages": [{"role": "user", "content": "hello"}]}


@pytest.mark.parametrize("path,body", [
    ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", GEMINI),
    ("/v1/projects/p/locations/l/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=json", GEMINI),
    ("/v1/projects/p/locations/l/publishers/mistralai/models/mistral-small:rawPredict", dict(CHAT, model="mistral-small")),
    ("/v1/projects/p/locations/l/publishers/mistralai/models/mistral-small:streamRawPredict",
     dict(CHAT, model="mistral-small", stream=True)),
    ("/v1/projects/p/locations/l/endpoints/openapi/chat/completions", CHAT),
    ("/openai/v1/chat/completions", CHAT),
    ("/openai/deployments/prod-gpt-4o/chat/completions?api-version=2024-10-21", CHAT),
    ("/openai/deployments/prod-gpt-4o/completions?api-version=2024-10-21", {"prompt": ["hello", "four"], "max_tokens": 15}),
], ids=lambda value: value.rpartition("/")[2].partition("?")[0] if isinstance(value, str) else "")
def test_other_paths_are_answered_and_charged(bursar, path, body):
    test_id = path
    status, _, data = post(bursar.envoy.port, path, body, {TEST_ID: test_id, "x-tenant-id": "strangers"}.items())
    assert status == 200, data
    bursar.is_charged(test_id, (3 if "prompt" in body else PROMPT + 4, 30))


def test_gemini_streams_an_array_without_alt_sse(standin):
    status, headers, data = post(standin, "/v1beta/models/gemini-2.5-pro:streamGenerateContent", GEMINI)
    parts = json.loads(data)
    assert (status, headers["content-type"], headers["transfer-encoding"]) == (200, "application/json", "chunked")
    assert len(parts) == 3 and parts[-1]["usageMetadata"]["candidatesTokenCount"] == 30
    assert len("".join(part["candidates"][0]["content"]["parts"][0]["text"] for part in parts).split()) == 30


def test_titan_embeds(standin):
    path = f"/model/{urllib.parse.quote('amazon.titan-embed-text-v2:0')}/invoke"
    status, headers, data = post(standin, path, {"inputText": "hello"})
    assert status == 200 and json.loads(data)["embedding"] and headers["x-amzn-bedrock-input-token-count"] == str(PROMPT)


def test_embeddings_come_as_numbers_or_as_base64_of_the_size_that_was_requested(standin):
    asked = {"model": "e", "input": ["hello", "there"], "dimensions": 16}
    data = json.loads(post(standin, "/v1/embeddings", asked)[2])["data"]
    assert [len(each["embedding"]) for each in data] == [16, 16]
    data = json.loads(post(standin, "/v1/embeddings", dict(asked, encoding_format="base64"))[2])["data"]
    assert [len(base64.b64decode(each["embedding"])) for each in data] == [64, 64]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages",
                                  "/v1/models/m:generateContent", "/model/amazon.nova-pro-v1:0/converse", "/model/meta.x/invoke",
                                  "/model/nobody/invoke", "/no/such/path"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"model":"m","messages":[],"input":{},"contents":7,"prompt":[]}',
                                  b'{"model":"m","prompt":' + b"[" * 900 + b"]" * 900 + b',"input":' + b"[" * 900 + b"]" * 900 + b"}"],
                         ids=["empty", "cut", "array", "object", "wrong", "deep"])
def test_whatever_it_cannot_read_is_refused_and_the_connection_stays(standin, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", standin, timeout=60)
    for _ in range(2):
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        refused = json.loads(response.read())
        assert response.status == (404 if path == "/no/such/path" else 400), refused
        assert refused.get("message") or refused["error"]["message"]
    connection.close()
