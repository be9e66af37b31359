"""Every way a request may end: counted once by its cause, and nothing stays held."""

import contextlib
import json
import socket

import pytest

from harness import answers, envoy, metrics
from harness.config import bucket, budget, plugin_config
from harness.http import chunked, head
from harness.rig import CHAT, HOLDING, MODES, STREAMING, chat_body
from harness.wait import let_pass, until

BUDGET = 1_000_000
BUCKET = 100_000   # of which no cell comes back within a test
PLANS = {"both": {"budget": budget(BUDGET), "bucket": bucket(BUCKET, "30d")}}
USAGE = answers.usage(1234, 56)
REPLY = "x-later-filter"   # says when the filter behind bursar answers, and with which status

LATER_FILTER = f"""
function envoy_on_request(handle)
  local when, status = (handle:headers():get("{REPLY}") or ""):match("(%a+) (%d+)")
  if when == "body" then
    handle:body()   -- waits for all of it
  end
  if when then
    handle:respond({{[":status"] = status, ["content-type"] = "text/plain"}}, "said by a later filter")
  end
end
"""


def add_ways_out(closed_port):
    def change(doc):
        envoy.add_route(doc, "/timeout/", route=envoy.to(timeout="0.5s"))
        envoy.add_route(doc, "/retried/", route=envoy.to(retry_policy={
            "retry_on": "5xx,reset", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}))
        envoy.add_route(doc, "/redirected/", route=envoy.to(internal_redirect_policy={
            "max_internal_redirects": 1, "redirect_response_codes": [307]}))
        envoy.add_route(doc, "/hedged/", route=envoy.to(
            hedge_policy={"hedge_on_per_try_timeout": True},
            retry_policy={"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.3s"}))
        for name, ports in (("refused", [closed_port]), ("empty", [])):
            envoy.add_cluster(doc, name, *ports)
            envoy.add_route(doc, f"/{name}/", route=envoy.to(name))
        envoy.add_route(doc, "/direct/", direct_response={"status": 403})
        add_later_filters(doc)

    return change


def add_later_filters(doc):
    kind = f"{envoy.render.EXTENSIONS}.filters.http"
    envoy.render.http_filters(doc)[1:1] = [
        {"name": "lua", "typed_config": {
            "@type": f"{kind}.lua.v3.Lua", "default_source_code": {"inline_string": LATER_FILTER}}},
        {"name": "buffer", "disabled": True, "typed_config": {
            "@type": f"{kind}.buffer.v3.Buffer", "max_request_bytes": 1}},
    ]
    # On no other path, since it waits for the whole body.
    envoy.add_route(doc, "/buffered/", route=envoy.to(), typed_per_filter_config={"buffer": {
        "@type": f"{kind}.buffer.v3.BufferPerRoute", "buffer": {"max_request_bytes": 50_000}}})


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    # Bound but not listening: whoever connects is refused, and nobody else gets the port.
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield start_rig(plugin_config(PLANS), mode=request.param, change=add_ways_out(closed.getsockname()[1]))


def counts(rig):
    """How many requests ended by each cause, and how many were settled by what."""
    now = rig.metrics()
    labels = {dict(labels).get(label) for _, labels in now for label in ("cause", "by")} - {None}
    return {label: metrics.total(now, "bursar_exits_total", cause=label)
            + metrics.total(now, "bursar_settlements_total", by=label) for label in labels}


@contextlib.contextmanager
def ends(rig, cause, by):
    """What happens within must end one request, by this cause (or none, if it was never admitted)."""
    before, wanted = counts(rig), {cause: 1, by: 1} if cause else {}
    yield

    def grown():
        after = counts(rig)
        return {label: after[label] - before.get(label, 0) for label in after if after[label] != before.get(label, 0)}
    until(lambda: len(grown()) >= len(wanted), f"{wanted} to be counted")
    assert grown() == wanted


def body_of(cells):
    """A request that takes exactly so many cells."""
    return next(body for body in (chat_body(max_tokens=cells - prompt) for prompt in range(cells))
                if -(-len(body) // 4) + json.loads(body)["max_tokens"] == cells)


def holds_nothing(rig, tenant, charged):
    """What was not charged can be had, to the last token, from the budget and from the bucket."""
    assert rig.left(tenant) == BUDGET - charged
    assert rig.post(tenant, body_of(BUCKET - charged + 1)).status == 429
    assert rig.post(tenant, body_of(BUCKET - charged)).status == 200


def one_event_and_then(gate):
    return answers.Answer([answers.stream("gpt-4o", USAGE)[0], gate.passed],
                          headers=[("content-type", "text/event-stream")], framing="chunked")


# --- the router answers, or breaks off ---


# What was not served returns its hold, whatever ended it.
def test_a_route_timeout_before_an_answer(rig):
    tenant, gate = rig.tenant("both"), answers.Gate()
    with ends(rig, "upstream_failed", "none"):
        response = rig.post(tenant, chat_body(), answer=answers.Silence(gate), path="/timeout" + CHAT)
        entry = rig.log(response)
    gate.open()
    assert (response.status, entry["details"]) == (504, "response_timeout")
    assert entry["charged"] == 0
    holds_nothing(rig, tenant, 0)


def test_a_route_timeout_within_an_answer(rig):
    tenant, gate = rig.tenant("both"), answers.Gate()
    with ends(rig, "cut", "estimate"):
        response = rig.post(tenant, chat_body(stream=True), answer=one_event_and_then(gate), path="/timeout" + CHAT)
        entry = rig.log(response)
    gate.open()
    assert (response.status, response.cut, entry["details"]) == (200, True, "response_timeout")
    assert 0 < entry["charged"] < 1_000
    holds_nothing(rig, tenant, entry["charged"])


@pytest.mark.parametrize("way,details", [("refused", "connection_refused"), ("empty", "no_healthy_upstream")])
def test_an_upstream_that_cannot_be_reached(rig, way, details):
    tenant = rig.tenant("both")
    # Without an endpoint the router answers as soon as it has the headers: in streaming mode before the model was read.
    admitted = rig.mode == HOLDING or way == "refused"
    with ends(rig, "upstream_failed" if admitted else None, "none"):
        response = rig.post(tenant, chat_body(), path=f"/{way}{CHAT}")
        entry = rig.log(response)
    assert response.status == 503
    assert details in entry["details"].lower(), entry
    assert entry["charged"] == (0 if admitted else None)
    holds_nothing(rig, tenant, 0)


# Servers in Go read no further than the JSON's end, and answer then.
def test_what_a_client_sends_after_its_json_takes_nothing_back(rig):
    tenant, gate, test_id = rig.tenant("both"), answers.Gate(), rig.new_id()
    rig.upstream.early[test_id] = one_event_and_then(gate)
    with ends(rig, "cut", "estimate"), rig.connect() as connection:
        chunks = chunked([chat_body(stream=True), b"x"])
        framing = [("transfer-encoding", "chunked")]
        connection.send(head("POST", CHAT, rig.headers(tenant, test_id, more=framing)), chunks[0])
        response = connection.read_body(connection.read_head(), upto=b"\n\n")
        connection.send(chunks[1])
        connection.read_body(response)
        entry = rig.envoy.logged(test_id)
    gate.open()
    assert (response.status, response.cut, entry["reason"]) == (200, True, "invalid_request_body")
    assert 0 < entry["charged"] < 1_000
    holds_nothing(rig, tenant, entry["charged"])


# A request that the router retries is one request to its tenant.
@pytest.mark.parametrize("last", ["served", "failed"])
def test_retries_are_one_request_whatever_becomes_of_them(rig, last):
    tenant = rig.tenant("both")
    final = answers.json_answer("gpt-4o", USAGE) if last == "served" else answers.error(503)
    cause, by, charged = ("answered", "usage", 1290) if last == "served" else ("upstream_failed", "none", 0)
    with ends(rig, cause, by):
        response = rig.post(tenant, chat_body(), answer=[answers.error(500), answers.Reset(), final],
                            path="/retried" + CHAT)
        entry = rig.log(response)
    assert (entry["settled_by"], entry["charged"]) == (by, charged)
    assert len(rig.upstream.of(response.id)) == 3
    holds_nothing(rig, tenant, charged)


def test_a_redirect_that_the_router_follows_is_charged_once(rig):
    tenant, before = rig.tenant("both"), counts(rig)
    moved = answers.Answer(b"", status=307, headers=[("location", f"http://elsewhere{CHAT}")])
    response = rig.post(tenant, chat_body(), answer=[moved, answers.json_answer("gpt-4o", USAGE)],
                        path="/redirected" + CHAT)
    assert response.status == 200
    assert len(rig.upstream.of(response.id)) == 2
    entry = until(lambda: (seen := rig.log(response))["details"] == "via_upstream" and seen, "the second stream's entry")
    assert (entry["settled_by"], entry["charged"]) == ("usage", 1290)
    holds_nothing(rig, tenant, 1290)
    after = counts(rig)
    assert after.get("redirected", 0) == before.get("redirected", 0) + 1


def test_a_hedged_request_is_one_request_whichever_try_answers(rig):
    tenant, gate = rig.tenant("both"), answers.Gate()
    with ends(rig, "answered", "usage"):
        response = rig.post(tenant, chat_body(), path="/hedged" + CHAT,
                            answer=[answers.Silence(gate), answers.json_answer("gpt-4o", USAGE)])
        entry = rig.log(response)
    gate.open()
    assert response.status == 200
    assert (entry["settled_by"], entry["charged"]) == ("usage", 1290)
    holds_nothing(rig, tenant, 1290)


# --- a later filter answers ---


@pytest.mark.parametrize("status,cause", [(403, "upstream_refused"), (503, "upstream_failed")])
@pytest.mark.parametrize("phase", ["headers", "body"])
def test_a_refusal_by_a_later_filter(rig, phase, status, cause):
    tenant = rig.tenant("both")
    # In streaming mode the headers go on before the model was read, and so before the admission.
    admitted = rig.mode == HOLDING or phase == "body"
    with ends(rig, cause if admitted else None, "none"):
        response = rig.chat(tenant, headers=[(REPLY, f"{phase} {status}")])
        entry = rig.log(response)
    assert (response.status, response.body) == (status, b"said by a later filter")
    assert rig.upstream.begun_of(response.id) == []
    assert entry["charged"] == (0 if admitted else None)
    holds_nothing(rig, tenant, 0)


# Where bursar has held the headers, Envoy's buffer filter does not refuse (seen in 1.40).
@pytest.mark.parametrize("rig", [STREAMING], indirect=True)
def test_a_later_filter_that_finds_the_body_too_long(rig):
    tenant = rig.tenant("both")
    with ends(rig, "upstream_refused", "none"):
        response = rig.post(tenant, chat_body(text="x" * 200_000), path="/buffered" + CHAT)
        entry = rig.log(response)
    assert (response.status, entry["details"], entry["charged"]) == (413, "request_payload_too_large", 0)
    assert rig.upstream.begun_of(response.id) == []
    holds_nothing(rig, tenant, 0)


def test_a_direct_response_of_the_route(rig):
    tenant = rig.tenant("both")
    with ends(rig, "upstream_refused" if rig.mode == HOLDING else None, "none"):
        response = rig.post(tenant, chat_body(), path="/direct" + CHAT)
        rig.log(response)
    assert response.status == 403
    holds_nothing(rig, tenant, 0)


# --- the answer takes long ---


# Local models need a minute and more for an answer.
def test_an_answer_that_comes_slowly_keeps_what_it_holds(start_rig):
    rig = start_rig(plugin_config(PLANS, reservation_expiry="3s"))
    tenant, body = rig.tenant("both"), chat_body(stream=True)
    words = [f"word-{number} " for number in range(8)]
    gates = [answers.Gate() for _ in words]
    answer = answers.sse_answer("gpt-4o", USAGE, words=words)
    for place, gate in enumerate(gates):
        answer.parts.insert(2 * place + 1, gate.passed)   # behind each word
    test_id = rig.new_id(answer)
    with rig.connect() as connection:
        rig.send(connection, test_id, tenant, [body])
        response = connection.read_head()
        for word, gate in zip(words, gates):
            connection.read_body(response, upto=word.encode())
            assert rig.left(tenant) == BUDGET - len(body) - 10
            let_pass(0.5)
            gate.open()
        connection.read_body(response)
    assert rig.envoy.logged(test_id)["charged"] == 1290
    holds_nothing(rig, tenant, 1290)


# --- Envoy drains ---


def open_stream(rig, tenant, gate, rest=()):
    """A stream whose first event has come: (connection, test id, answer so far)."""
    answer = one_event_and_then(gate)
    answer.parts.extend(rest)
    test_id, connection = rig.new_id(answer), rig.connect()
    rig.send(connection, test_id, tenant, [chat_body(stream=True)])
    response = connection.read_head()
    connection.read_body(response, upto=answer.parts[0])
    return connection, test_id, response


def refuses_connections(rig):
    try:
        rig.connect().close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("how", ["/healthcheck/fail", "/drain_listeners?graceful"])
def test_a_stream_that_ends_while_envoy_drains(start_rig, how):
    rig = start_rig(plugin_config(PLANS))
    tenant, gate = rig.tenant("both"), answers.Gate()
    with ends(rig, "answered", "usage"):
        connection, test_id, response = open_stream(rig, tenant, gate, answers.stream("gpt-4o", USAGE)[1:])
        rig.envoy.admin(how, method="POST")
        if "drain_listeners" in how:
            until(lambda: refuses_connections(rig), "the listener to be gone")
        gate.open()
        connection.read_body(response)
        entry = rig.envoy.logged(test_id)
    connection.close()
    assert (response.cut, response.body.endswith(b"data: [DONE]\n\n")) == (False, True)
    assert (entry["settled_by"], entry["charged"], entry["remaining"]) == ("usage", 1290, BUDGET - 1290)
    assert rig.remaining(tenant) == BUDGET - 1290


def test_a_stream_that_outlives_the_drain_of_its_configuration(start_rig):
    rig = start_rig(plugin_config(PLANS), lds=True)
    tenant, gate = rig.tenant("both"), answers.Gate()
    with ends(rig, "cut", "estimate"):
        connection, test_id, response = open_stream(rig, tenant, gate)
        rig.envoy.update(plugin_config({"both": dict(PLANS["both"], low_water_mark=0.1)}))
        entry = rig.envoy.logged(test_id)
    assert connection.read_body(response).cut
    connection.close()
    gate.open()
    assert 0 < entry["charged"] < 1_000
    holds_nothing(rig, tenant, entry["charged"])
