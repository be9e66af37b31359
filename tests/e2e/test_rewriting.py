"""The body that reaches the upstream: the model exchanged, every other byte as it was."""

import json

import pytest

from harness.config import budget, plugin_config
from harness.http import chunked, head
from harness.rig import CHAT, HOLDING, MODES, STREAMING, chat_body

PLANS = {"ample": {"budget": budget(1_000_000_000)}, "spent": {"budget": budget(1_000)}}

# `@` stands for the value of `model`.
BODIES = {
    "first": '{"model":@,"messages":[{"role":"user","content":"Hi"}],"max_tokens":5}',
    "last": '{"messages":[{"role":"user","content":"Hi"}],"max_tokens":5,"model":@}',
    "alone": '{"model":@}',
    "spaced": ' \r\n\t{ "max_tokens" : 5 ,\n "model"\t: \r\n @ \n, "messages" : [ ] }\n\n',
    "nested_elsewhere": '{"tools":[{"type":"function","function":{"name":"model","parameters":{"model":"gpt-4o"}}}],'
                        '"metadata":{"model":"gpt-4o"},"model":@,"messages":[],"response_format":{"model":"gpt-4o"}}',
    "in_message_text": r'{"messages":[{"role":"user","content":"say {\"model\":\"gpt-4o\"} \\"}],"model":@}',
    "as_a_value": '{"user":"model","messages":[{"role":"model","content":"model"}],"model":@}',
    "escaped_key": r'{"messages":[],"mod\u0065l":@,"max_tokens":5}',
    "numbers": '{"temperature":0.10000000000000000001,"top_p":1.0,"seed":123456789012345678901234567890,"x":1E+02,'
               '"y":-0.0,"model":@,"z":[1e-7,5E3]}',
    "not_ascii": '{"messages":[{"role":"user","content":"grüße 你好 \U0001f600 \\ud83d\\ude00 \\/"}],"model":@,"é":1}',
    "odd_order": '{"z":1,"model":@,"a":{"z":1,"a":[{},[],"",null,true,false]},"":""}',
}


def with_model(body, model):
    return body.replace("@", model).encode()


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param)


@pytest.fixture(scope="module")
def lower(rig):
    """A tenant whose requests for gpt-4o are served by gpt-4o-mini."""
    tenant = rig.tenant("ample")
    rig.spend(tenant, 850_000_000)
    return tenant


# From here on a body that passes keeps a length.
LONG = 32 * 1024


@pytest.fixture(scope="module")
def full(rig):
    return rig.tenant("ample")


def is_framed_rightly(rig, request):
    """No length that is not the body's, and nothing beyond the body."""
    assert request.surplus == b""
    keeps_length = rig.mode == HOLDING or len(request.body) >= LONG
    if keeps_length and request.header("transfer-encoding") is None:
        assert request.all("content-length") == [str(len(request.body))]
    else:
        assert request.all("content-length") == []
        assert request.all("transfer-encoding") == ["chunked"]


# `model` may come first or last, nested, escaped, or as text within a string. Only the model's bytes change:
# digits, key order and white space stay.
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("name", list(BODIES))
def test_only_the_models_bytes_change(rig, lower, name, framing):
    response = rig.post(lower, with_model(BODIES[name], '"gpt-4o"'), framing=framing)
    assert response.status == 200, response
    assert rig.seen(response).body == with_model(BODIES[name], '"gpt-4o-mini"')
    is_framed_rightly(rig, rig.seen(response))


@pytest.mark.parametrize("name", list(BODIES))
def test_a_request_that_keeps_its_model_keeps_every_byte(rig, full, name):
    body = with_model(BODIES[name], '"gpt-4o"')
    response = rig.post(full, body)
    assert response.status == 200, response
    assert rig.seen(response).body == body
    is_framed_rightly(rig, rig.seen(response))


@pytest.mark.parametrize("written", [r'"gpt\u002d4o"', r'"\u0067pt-4o"'])
def test_an_escaped_models_name_is_understood(rig, lower, written):
    response = rig.post(lower, with_model(BODIES["first"], written))
    assert response.header("x-bursar-requested-model") == "gpt-4o"
    assert rig.seen(response).body == with_model(BODIES["first"], '"gpt-4o-mini"')


# Bodies may be nested deeply, huge, cut off, or come byte by byte.
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("name", ["first", "last", "escaped_key"])
def test_a_body_that_trickles_in_byte_by_byte_is_rewritten_alike(rig, lower, name, framing):
    body = with_model(BODIES[name], '"gpt-4o"')
    pieces = [body[at:at + 1] for at in range(len(body))]
    response = rig.post(lower, body, pieces=pieces, framing=framing, edges=True)
    assert response.status == 200, response
    assert rig.seen(response).body == with_model(BODIES[name], '"gpt-4o-mini"')
    is_framed_rightly(rig, rig.seen(response))


def test_a_body_split_anywhere_around_the_model_is_rewritten_alike(rig, lower):
    body = with_model(BODIES["odd_order"], '"gpt-4o"')
    start, end = body.index(b'"model"'), body.index(b'"gpt-4o"') + len(b'"gpt-4o"')
    for at in range(start - 1, end + 2):
        response = rig.post(lower, body, pieces=[body[:at], body[at:]], edges=True)
        assert rig.seen(response).body == with_model(BODIES["odd_order"], '"gpt-4o-mini"'), f"split at {at}"


# A stale content-length would make the rest of a body the next request.
def test_an_upstream_connection_is_reused_cleanly_after_a_rewrite(rig, lower, full):
    with rig.connect() as connection:
        served = [rig.post(tenant, with_model(BODIES[name], '"gpt-4o"'), on=connection)
                  for name in ("first", "last", "not_ascii") for tenant in (lower, full)]
    requests = [rig.seen(response) for response in served]
    assert len({request.connection for request in requests}) <= 2   # one for each cluster
    assert {request.line for request in requests} == {f"POST {CHAT} HTTP/1.1"}
    for request in requests:
        is_framed_rightly(rig, request)


def large(where, size):
    """A body of about `size` bytes whose model stands first or last."""
    filler = '"messages":[{"role":"user","content":"' + "lorem ipsum é " * (size // 15) + '"}],"max_tokens":5'
    return '{"model":@,' + filler + "}" if where == "first" else "{" + filler + ',"model":@}'


# Envoy's buffer limit is 1 MiB by default; no 413 may be of our making.
@pytest.mark.parametrize("size", [1_500_000, 3_000_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("where", ["first", "last"])
def test_a_body_above_the_buffer_limit_passes(rig, lower, where, framing, size):
    template = large(where, size)
    response = rig.post(lower, with_model(template, '"gpt-4o"'), framing=framing)
    assert response.status == 200, response
    assert rig.seen(response).unpadded() == with_model(template, '"gpt-4o-mini"')
    is_framed_rightly(rig, rig.seen(response))
    assert response.header("x-bursar-model") == "gpt-4o-mini"


@pytest.mark.parametrize("size", [983_000, 983_100, 1_040_000, 1_060_000])
def test_a_body_about_the_size_of_the_buffer_limit_passes(rig, lower, size):
    template = large("last", 900_000)
    template = template.replace("lorem", "lorem" + "m" * (size - len(template.encode())), 1)
    sent = with_model(template, '"gpt-4o"')
    response = rig.post(lower, sent)
    assert response.status == 200, response
    is_held = rig.mode == HOLDING and len(sent) <= 983_040
    request = rig.seen(response)
    assert (request.body if is_held else request.unpadded()) == with_model(template, '"gpt-4o-mini"')
    is_framed_rightly(rig, request)


def test_a_client_that_expects_100_continue_gets_it_and_is_served(rig, lower):
    test_id, body = rig.new_id(), with_model(BODIES["first"], '"gpt-4o"')
    headers = rig.headers(lower, test_id, more=[("content-length", len(body)), ("expect", "100-continue")])
    with rig.connect() as connection:
        connection.send(head("POST", CHAT, headers))
        assert connection.read_interim() == 100
        connection.send(body)
        assert connection.read().status == 200
    assert [each.body for each in rig.upstream.of(test_id)] == [with_model(BODIES["first"], '"gpt-4o-mini"')]


def expecting(rig, tenant, body, path=CHAT):
    """A request of which the client sends the body only after a 100: (test id, interim status, answer)."""
    test_id = rig.new_id()
    headers = rig.headers(tenant, test_id, more=[("content-length", len(body)), ("expect", "100-continue")])
    with rig.connect() as connection:
        connection.send(head("POST", path, headers))
        interim = connection.read_interim()
        if interim == 100:
            connection.send(body)
        return test_id, interim, connection.read() if interim == 100 else None


def test_a_client_that_expects_100_continue_is_refused_with_the_body_in_hand(rig):
    tenant = rig.tenant("spent")
    rig.spend(tenant, 1_000)
    test_id, interim, response = expecting(rig, tenant, chat_body())
    if interim == 100:
        assert (response.status, response.code) == (429, "insufficient_quota")
    else:
        # Where no headers are held, a spent budget is told before anything is sent.
        assert (interim, rig.mode) == (429, STREAMING)
    assert rig.upstream.of(test_id) == []


def test_an_expectation_is_envoys_and_not_the_upstreams(rig, lower):
    body = b'{"contents":[{"parts":[{"text":"Hi"}]}]}'
    for path in (CHAT, "/v1beta/models/gemini-2.5-pro:generateContent"):
        sent = chat_body() if path == CHAT else body
        test_id, interim, response = expecting(rig, lower, sent, path)
        assert (interim, response.status) == (100, 200)
        (request,) = rig.upstream.of(test_id)
        assert request.header("expect") is None
        is_framed_rightly(rig, request)


def test_pipelined_requests_are_each_rewritten(rig, lower):
    ids = [rig.new_id() for _ in range(3)]
    body = with_model(BODIES["last"], '"gpt-4o"')
    framings = [("content-length", len(body)), ("transfer-encoding", "chunked"), ("content-length", len(body))]
    data = b""
    for test_id, framing in zip(ids, framings):
        framed = b"".join(chunked([body[:20], body[20:]])) if framing[1] == "chunked" else body
        data += head("POST", CHAT, rig.headers(lower, test_id, more=[framing])) + framed
    with rig.connect() as connection:
        connection.send(data)
        assert [connection.read().status for _ in ids] == [200] * 3
    for test_id in ids:
        assert [each.body for each in rig.upstream.of(test_id)] == [with_model(BODIES["last"], '"gpt-4o-mini"')]


def test_the_path_may_carry_a_prefix_and_a_query(rig, lower):
    for path in ("/proxy/openai/v1/chat/completions", "/v1/chat/completions?api-version=1&x=/v1/models"):
        response = rig.post(lower, chat_body(), path=path)
        assert rig.seen(response).target == path
        assert rig.seen(response).json()["model"] == "gpt-4o-mini"


# --- asking for usage ---

OPTIONS = {
    "no_options": {},
    "empty_options": {"stream_options": {}},
    "null_options": {"stream_options": None},
    "declined": {"stream_options": {"include_usage": False}},
    "other_options": {"stream_options": {"include_obfuscation": False}},
}


# Without `include_usage` a stream reports nothing.
@pytest.mark.parametrize("name", list(OPTIONS))
@pytest.mark.parametrize("whose", ["lower", "full"])
def test_a_stream_is_made_to_report_usage_without_the_client_seeing_it(rig, request, whose, name):
    tenant = request.getfixturevalue(whose)
    response = rig.chat(tenant, stream=True, usage=(21, 4), **OPTIONS[name])
    sent = rig.seen(response).json()
    assert sent["stream_options"].pop("include_usage") is True
    assert sent["stream_options"] == {key: value for key, value in (OPTIONS[name].get("stream_options") or {}).items()
                                      if key != "include_usage"}
    assert all(event["choices"] for event in response.events()[:-1])
    assert response.events()[-1] == "[DONE]"
    entry = rig.log(response)
    assert (entry["charged"], entry["settled_by"]) == (25, "usage")
    is_framed_rightly(rig, rig.seen(response))


def test_a_client_that_asked_for_usage_gets_it(rig, full):
    body = chat_body(stream=True, stream_options={"include_usage": True})
    response = rig.post(full, body, usage=(21, 4))
    assert rig.seen(response).body == body
    assert response.events()[-2]["choices"] == []
    assert response.events()[-2]["usage"]["total_tokens"] == 25


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("order", [("model", "stream"), ("stream", "model")], ids="-".join)
def test_usage_is_asked_for_wherever_stream_and_model_stand(rig, lower, order, framing):
    values = {"model": "gpt-4o", "stream": True}
    body = {order[0]: values[order[0]], "messages": [{"role": "user", "content": "Hi"}], order[1]: values[order[1]],
            "max_tokens": 7}
    whole = json.dumps(body).encode()
    pieces = [whole[at:at + 5] for at in range(0, len(whole), 5)]
    response = rig.post(lower, whole, pieces=pieces, framing=framing, edges=True)
    assert rig.seen(response).json() == dict(body, model="gpt-4o-mini", stream_options={"include_usage": True})
    assert rig.log(response)["settled_by"] == "usage"


def test_a_request_that_does_not_stream_is_not_asked_to_report(rig, full):
    for stream in (None, False):
        response = rig.chat(full, stream=stream)
        assert "stream_options" not in rig.seen(response).json()
