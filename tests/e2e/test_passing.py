"""What must pass untouched and unmetered: other methods on metered paths, and WebSockets."""

import socket

import pytest

from harness import answers, envoy
from harness.config import budget, plugin_config
from harness.http import head
from harness.rig import CHAT, MODES, chat_body
from harness.upstream import TEST_ID

PLANS = {"gold": {"budget": budget(100_000)}}
METERED = (
    CHAT, "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages",
    "/openai/deployments/prod-gpt-4o/chat/completions?api-version=2024-10-21",
    "/v1beta/models/gemini-2.5-pro:generateContent", "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
    "/v1/projects/p/locations/us-east5/publishers/anthropic/models/claude-opus-4-1@20250805:rawPredict",
    "/model/us.amazon.nova-pro-v1%3A0/converse", "/model/us.amazon.nova-pro-v1%3A0/invoke-with-response-stream",
)
# A text frame as a client masks it, then bytes that are no frame at all.
FRAME = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
NOISE = bytes(range(256)) * 40


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    def allow_upgrades(doc):
        envoy.render.hcm(doc)["upgrade_configs"] = [{"upgrade_type": "websocket"}]

    return start_rig(plugin_config(PLANS), mode=request.param, change=allow_upgrades)


def is_unmetered(rig, headers, test_id):
    assert not [name for name, _ in headers if name.lower().startswith(("x-bursar", "x-ratelimit", "ratelimit"))]
    entry = rig.envoy.logged(test_id)
    assert (entry["tenant"], entry["decision"], entry["charged"]) == (None, None, None)


# --- other methods ---


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "GET"])
@pytest.mark.parametrize("path", METERED)
def test_another_method_on_a_metered_path_passes_untouched(rig, path, method):
    before = rig.metric("bursar_requests_total")
    response = rig.get(path, method, headers=[("accept-encoding", "gzip")])
    assert response.status == 200
    assert rig.seen(response).line == f"{method} {path} HTTP/1.1"
    assert rig.seen(response).all("accept-encoding") == ["gzip"]
    is_unmetered(rig, response.headers, response.id)
    assert rig.metric("bursar_requests_total") == before


def test_a_head_is_answered_with_the_length_that_the_upstream_told(rig):
    answer = answers.Answer([], headers=[("content-type", "application/json")], length=1234)
    response = rig.get(CHAT, "HEAD", answer=answer)
    assert (response.status, response.header("content-length"), response.body) == (200, "1234", b"")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_the_body_of_another_method_stays_as_it_is(rig, framing):
    test_id, body = rig.new_id(), b'{"model": broken'
    how = ("transfer-encoding", "chunked") if framing == "chunked" else ("content-length", len(body))
    sent = b"10\r\n" + body + b"\r\n0\r\n\r\n" if framing == "chunked" else body
    with rig.connect() as connection:
        connection.send(head("OPTIONS", CHAT, [("host", "llm.test"), (TEST_ID, test_id), how]) + sent)
        response = connection.read("OPTIONS")
    assert response.status == 200
    assert [request.body for request in rig.upstream.of(test_id)] == [body]
    is_unmetered(rig, response.headers, test_id)


# --- WebSockets ---


def upgrade(rig, path, method="GET", more=()):
    """Asks for a WebSocket; returns (connection, test id, the answer's head)."""
    test_id = rig.new_id(answers.Echo())
    connection = rig.connect()
    connection.send(head(method, path, [
        ("host", "llm.test"), ("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("openai-beta", "realtime=v1"), (TEST_ID, test_id), *more]))
    return connection, test_id, connection.read_head()


@pytest.mark.parametrize("path", ["/v1/realtime?model=gpt-4o", "/v1/live/sessions", "/v1/unknown"])
def test_a_websocket_passes_untouched_both_ways(rig, path):
    before = rig.metric("bursar_requests_total")
    connection, test_id, response = upgrade(rig, path, more=[("x-bursar-tier", "compact")])
    with connection:
        assert (response.status, response.header("upgrade")) == (101, "websocket")
        for data in (FRAME, NOISE, b'{"model":"gpt-4o"}', FRAME):
            connection.send(data)
            assert connection.read_bytes(len(data)) == data
    is_unmetered(rig, response.headers, test_id)
    (request,) = rig.upstream.begun_of(test_id)
    assert request.line == f"GET {path} HTTP/1.1"
    assert (request.header("openai-beta"), request.header("x-bursar-tier")) == ("realtime=v1", None)
    assert rig.metric("bursar_requests_total") == before


# A tunnel cannot be metered: Codex falls back to POST on this. (issue 13)
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("method,path", [("GET", "/v1/responses"), ("GET", CHAT), ("POST", CHAT), ("GET", "/v1/messages")])
def test_an_upgrade_of_a_metered_path_is_refused_by_the_tenants_rules_first(rig, method, path, known):
    whose = rig.tenant("gold") if known else "nobody"
    connection, test_id, response = upgrade(rig, path, method, more=[("x-tenant-id", whose)])
    with connection:
        assert response.status == (426 if known else 403)
    entry = rig.envoy.logged(test_id)
    assert entry["reason"] == ("upgrade_not_supported" if known else "tenant_unknown")
    assert rig.upstream.begun_of(test_id) == []


def test_asking_for_an_upgrade_is_no_way_around_the_meter(rig):
    """Envoy hands on what follows such a request's head as a stream without an end, so it cannot be served."""
    tenant, test_id, body = rig.tenant("gold"), rig.new_id(), chat_body()
    rig.spend(tenant, 100_000)
    with rig.connect() as connection:
        connection.send(head("POST", CHAT, rig.headers(tenant, test_id, more=[
            ("content-length", len(body)), ("connection", "Upgrade"), ("upgrade", "websocket")])) + body)
        connection.sock.shutdown(socket.SHUT_WR)
        rig.envoy.logged(test_id)
    assert [request.body + request.surplus for request in rig.upstream.begun_of(test_id)] in ([], [b""])
    assert rig.tokens(tenant=tenant) == {"input": 100_000, "cached_input": 0, "output": 0}
