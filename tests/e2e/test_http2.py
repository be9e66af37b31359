"""What HTTP/2 has and HTTP/1.1 seldom shows: trailers, and answers that come before the request is over."""

import contextlib

import pytest

from harness import answers, envoy, http2
from harness.config import budget, plugin_config
from harness.http import chunked, head
from harness.rig import CHAT, HOLDING, MODES, chat_body
from harness.upstream import TEST_ID

INITIAL = 100_000
# What an upstream refuses in one test must not send another one's requests to a lower tier.
PLANS = {"gold": {"budget": budget(INITIAL)}, "kept": {"budget": budget(INITIAL), "never_downgrade": True}}
USAGE = answers.usage(1234, 56)
EVENTS = answers.stream("gpt-4o", USAGE)
SILENT = b"".join(EVENTS[:-2])   # what a client sees that did not ask for usage, but for [DONE]
SILENT = b"".join(EVENTS[:-2])   # what a client sees that did not ask for usage, but for [DONE]
SILENT = b"".join(EVENTS[:-2])   # what a client sees that did not ask for usage, but for [DONE]
SILENT = b"".join(EVENTS[:-2])   # what a client sees that did not ask for usage, but for [DONE]
SILENT = b"".join(EVENTS[:-2])   # what a client sees that did not ask for usage, but for [DONE]
JSON = [(":status", "200"), ("content-type", "application/json")]
SSE = [(":status", "200"), ("content-type", "text/event-stream")]
REQUEST_TRAILERS = [("x-checksum", "abc"), ("x-bursar-tier", "compact"), ("x_bursar_y", "1")]
RESPONSE_TRAILERS = [("x-sum", "def"), ("x-bursar-reason", "evil")]


def speak_http2(upstream):
    def change(doc):
        # One request on each connection, so that a test has them apart.
        envoy.add_cluster(doc, "h2", upstream.port, typed_extension_protocol_options=envoy.protocol_options(
            common_http_protocol_options={"max_requests_per_connection": 1},
            explicit_http_config={"http2_protocol_options": {}}))
        envoy.add_route(doc, "/h2/", route=envoy.to("h2"))
        with_trailers = {"enable_trailers": True}
        envoy.render.hcm(doc)["http_protocol_options"] = with_trailers
        envoy.render.clusters(doc)[0]["typed_extension_protocol_options"] = envoy.protocol_options(
            explicit_http_config={"http_protocol_options": with_trailers})

    return change


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    upstream = http2.Upstream()
    rig = start_rig(plugin_config(PLANS), mode=request.param, change=speak_http2(upstream))
    rig.http2 = upstream
    yield rig
    upstream.stop()


def begin(rig, tenant, more=()):
    """A request of which only the headers were sent: (client, test id)."""
    test_id = rig.new_id()
    client = http2.connect(rig.envoy.port)
    client.send_headers([(":method", "POST"), (":scheme", "http"), (":authority", "llm.test"), (":path", "/h2" + CHAT),
                         ("content-type", "application/json"), (TEST_ID, test_id), ("x-tenant-id", tenant), *more])
    return client, test_id


@contextlib.contextmanager
def ends(rig, tenant, test_id, cause, by, charged, had=INITIAL):
    """What happens within must end this request so, and nothing may stay held. `cause` None: it was never admitted;
    `charged` None: any estimate."""
    def causes():
        return {dict(labels)["cause"]: count for (name, labels), count in rig.metrics().items()
                if name == "bursar_exits_total"}

    before = causes()
    yield
    entry = rig.envoy.logged(test_id)   # and only then what was counted
    after = causes()
    grown = {each: after[each] - before.get(each, 0) for each in after if after[each] != before.get(each, 0)}
    assert (grown, entry["settled_by"]) == ({cause: 1} if cause else {}, by)
    if charged is None:
        assert 0 < entry["charged"] < 1_000
    else:
        assert (entry["charged"] or 0) == charged
    assert rig.left(tenant) == had - (entry["charged"] or 0)


# --- trailers ---


# Gemini and the Responses API end without `[DONE]`. Without `include_usage` a stream reports nothing. A client may
# send headers under our names.
@pytest.mark.parametrize("stream,parts,seen,by,charged", [
    (False, [answers.completion("gpt-4o", USAGE)], answers.completion("gpt-4o", USAGE), "usage", 1290),
    (False, [answers.completion("gpt-4o", None)], answers.completion("gpt-4o", None), "estimate", None),
    (True, EVENTS, SILENT + answers.DONE, "usage", 1290),
    (True, EVENTS[:-1], SILENT, "usage", 1290),
    (True, EVENTS[:-2] + [EVENTS[-2].rstrip()], SILENT, "usage", 1290),
], ids=["json", "json_without_usage", "sse", "sse_without_done", "sse_without_the_last_empty_line"])
def test_request_and_response_end_with_trailers(rig, stream, parts, seen, by, charged):
    tenant = rig.tenant("gold")
    client, test_id = begin(rig, tenant)
    with client, ends(rig, tenant, test_id, "answered", by, charged):
        client.send(chat_body(stream=stream))
        client.send_trailers(REQUEST_TRAILERS)
        with rig.http2.accept(test_id) as upstream:
            upstream.read()
            upstream.send_headers(SSE if stream else JSON)
            for part in parts:
                upstream.send(part)
            upstream.send_trailers(RESPONSE_TRAILERS)
            client.read()
    assert upstream.trailers == REQUEST_TRAILERS[:1]
    assert upstream.json().get("stream_options") == ({"include_usage": True} if stream else None)
    assert (client.status, client.body, client.trailers) == (200, seen, RESPONSE_TRAILERS[:1])


def test_trailers_over_http1(rig):
    tenant = rig.tenant("gold")
    test_id = rig.new_id(answers.Answer(EVENTS, headers=SSE[1:], framing="chunked", trailers=RESPONSE_TRAILERS))
    trailers = "".join(f"{name}: {value}\r\n" for name, value in REQUEST_TRAILERS).encode()
    *chunks, _ = chunked([chat_body(stream=True)])
    with rig.connect() as client, ends(rig, tenant, test_id, "answered", "usage", 1290):
        client.send(head("POST", CHAT, rig.headers(tenant, test_id, more=[("transfer-encoding", "chunked")])),
                    *chunks, b"0\r\n" + trailers + b"\r\n")
        response = client.read()
    assert (response.body, response.trailers) == (SILENT + answers.DONE, RESPONSE_TRAILERS[:1])
    assert rig.upstream.of(test_id)[0].trailers == REQUEST_TRAILERS[:1]


# A stale content-length would make the rest of a body the next request.
@pytest.mark.parametrize("tells_length", [False, True])
def test_a_downgraded_request_keeps_its_trailers(rig, tells_length):
    tenant, body = rig.tenant("gold"), chat_body()
    rig.spend(tenant, 90_000)
    client, test_id = begin(rig, tenant, [("content-length", str(len(body)))] * tells_length)
    with client, ends(rig, tenant, test_id, "answered", "usage", 1290, had=INITIAL - 90_000):
        for start in range(0, len(body), 7):
            client.send(body[start:start + 7])
        client.send_trailers(REQUEST_TRAILERS)
        with rig.http2.accept(test_id) as upstream:
            upstream.read()
            upstream.send_headers(JSON)
            upstream.send(answers.completion("gpt-4o-mini", USAGE), end=True)
            client.read()
    assert upstream.body == body.replace(b"gpt-4o", b"gpt-4o-mini")
    assert upstream.all("content-length") in ([], [str(len(upstream.body))])
    assert upstream.trailers == REQUEST_TRAILERS[:1]
    assert client.header("x-bursar-decision") == "downgrade"


# Elsewhere refused clients drained the limit of all.
@pytest.mark.parametrize("body,status,code,ending", [
    (chat_body(max_tokens=INITIAL), 429, "insufficient_quota", (None, None, 0)),
    (chat_body()[:-1], 400, "invalid_request_body", ("unsent", "none", 0)),
], ids=["too_costly", "truncated"])
def test_a_request_that_ends_with_trailers_is_refused(rig, body, status, code, ending):
    tenant = rig.tenant("gold")
    client, test_id = begin(rig, tenant)
    with client, ends(rig, tenant, test_id, *ending):
        client.send(body)
        client.send_trailers(REQUEST_TRAILERS)
        client.read()
    assert (client.status, client.json()["error"]["code"]) == (status, code)


# --- an answer before the request is over ---


MODEL_FIRST = chat_body(stream=True)
MODEL_LAST = b'{"messages": [], "stream": true, "max_tokens": 10, "model": "gpt-4o"}'
# How much the upstream has when it answers, and whether that much admits a request.
EARLY = {
    "all_but_the_end": (MODEL_FIRST, len(MODEL_FIRST), True),
    "the_model": (MODEL_FIRST, 40, True),
    "no_model": (MODEL_LAST, 40, False),
}


@pytest.fixture(params=list(EARLY))
def early(rig, request):
    """A request whose end has not been sent."""
    body, length, admits = EARLY[request.param]
    if rig.mode == HOLDING and not admits:
        length, admits = len(body), True   # before the model was read the upstream gets nothing
    return Early(rig, body[:length], body[length:], admits)


class Early:
    def __init__(self, rig, part, rest, admits):
        self.rig, self.part, self.rest, self.admits = rig, part, rest, admits
        self.tenant = rig.tenant("kept")

    def ends(self, cause, by, charged):
        """What happens within must end it so, if it was admitted."""
        ending = (cause, by, charged) if self.admits else (None, None, 0)
        return ends(self.rig, self.tenant, self.test_id, *ending)

    def begin(self):
        """(client, upstream), of which the upstream has the first part."""
        client, self.test_id = begin(self.rig, self.tenant)
        client.send(self.part)
        upstream = self.rig.http2.accept(self.test_id)
        # The end is changed where usage is asked for.
        return client, upstream.read(upto=self.part[:-1])


# What was not served returns its hold, whatever ended it.
@pytest.mark.parametrize("status,cause", [("429", "upstream_refused"), ("500", "upstream_failed")])
def test_an_early_refusal_returns_the_reservation(rig, early, status, cause):
    client, upstream = early.begin()
    with client, upstream, early.ends(cause, "none", 0):
        upstream.send_headers([(":status", status), ("retry-after", "17")])
        upstream.send(b"no", end=True)
        client.read()
    assert (client.status, client.body, client.all("retry-after")) == (int(status), b"no", ["17"])


def test_an_early_answer_is_charged_what_it_reports(rig, early):
    client, upstream = early.begin()
    with client, upstream, early.ends("answered", "usage", 1290):
        upstream.send_headers(SSE)
        upstream.send(b"".join(EVENTS), end=True)
        client.read()
    # Usage stays where bursar has not read yet whether the client asked for it.
    assert client.body == (b"".join(EVENTS) if early.rest else SILENT + answers.DONE)


# Some clients close at `[DONE]`, or before usage comes.
def test_an_early_answer_that_is_cut_is_charged_by_estimate(rig, early):
    client, upstream = early.begin()
    with client, upstream, early.ends("cut", "estimate", None):
        upstream.send_headers(SSE)
        upstream.send(EVENTS[0])
        client.read(upto=EVENTS[0])
        client.send_reset()


def test_a_request_that_ends_within_its_answer_is_charged_what_that_reports(rig, early):
    client, upstream = early.begin()
    early.admits = True   # in the end
    with client, upstream, early.ends("answered", "usage", 1290):
        upstream.send_headers(SSE)
        upstream.send(EVENTS[0])
        client.read(upto=EVENTS[0])
        client.send(early.rest, end=True)
        upstream.read()
        upstream.send(b"".join(EVENTS[1:]), end=True)
        client.read()
    assert upstream.json()["stream_options"] == {"include_usage": True}
    assert client.body.endswith(answers.DONE)


# The upstream has all that it needs to answer, and its answer is paid for, though the request was never ended.
@pytest.mark.parametrize("tells_length", [False, True])
def test_a_whole_request_that_is_never_ended_and_reset_is_charged_what_was_reserved(rig, tells_length):
    tenant, body = rig.tenant("gold"), chat_body(max_tokens=500)
    client, test_id = begin(rig, tenant, [("content-length", str(len(body)))] * tells_length)
    # The upstream stays until it is logged: it must not be what ends it.
    with client, contextlib.ExitStack() as stays:
        with ends(rig, tenant, test_id, "unended", "estimate", 500 + -(-len(body) // 4)):
            client.send(body)
            upstream = stays.enter_context(rig.http2.accept(test_id))
            assert upstream.read(upto=b'"max_tokens": 500}').json()["max_tokens"] == 500
            client.send_reset()
