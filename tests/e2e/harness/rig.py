"""Upstream, Envoy and client in one: what a test holds in its hands."""

import itertools
import json

from . import config, envoy, http, metrics
from .upstream import TEST_ID, TEST_USAGE, Upstream
from .wait import until

CHAT = "/v1/chat/completions"
HOLDING = "held"          # headers are held until the body has been read
STREAMING = "streaming"   # headers leave at once, the body is rewritten as it passes
MODES = (HOLDING, STREAMING)
NUMBERS = itertools.count()   # of test ids, over all rigs, since rigs may share an upstream


def chat_body(model="gpt-4o", max_tokens=10, stream=None, text="Hi", **extra):
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if stream is not None:
        body["stream"] = stream
    body.update(extra)
    return json.dumps(body).encode()


class Rig:
    """A started Envoy between a scripted upstream and the test."""

    def __init__(self, folder, plugin_config, mode=HOLDING, change=None, node_metadata=None,
                 wasm=envoy.WASM, traps=False, **how):
        self.mode = mode
        self.config = plugin_config
        self.traps = traps   # the test makes the filter trap
        self.metered = set()   # test ids of answers in which bursar told what it decided
        self.upstream = Upstream()
        self.pool = config.Pool()
        doc = envoy.document(plugin_config, self.upstream.port, hold_headers=mode == HOLDING, change=change,
                             node_metadata=node_metadata, wasm=wasm)
        self.envoy = envoy.Envoy(folder, doc, **how)
        self.upstream.read_by_envoy = self.envoy.read_from_upstream

    def wait_ready(self):
        self.envoy.wait_ready()
        return self

    def stop(self):
        try:
            if self.traps:
                self.envoy.kill()
            else:
                self.envoy.stop()
            assert not self.upstream.malformed, f"the upstream got what is no request: {self.upstream.malformed}"
        finally:
            self.upstream.stop()

    def tenant(self, plan):
        """A tenant on `plan` that no other test uses."""
        return self.pool.take(plan)

    # --- sending ---

    def headers(self, tenant, test_id, usage=None, more=()):
        """The headers of a chat request except for those that frame its body."""
        headers = [("host", "llm.test"), ("content-type", "application/json"), (TEST_ID, test_id)]
        if tenant is not None:
            headers.append(("x-tenant-id", tenant))
        if test_id in self.upstream.scripts:
            headers.append(("authorization", f"Bearer {test_id}"))
        if usage is not None:
            headers.append((TEST_USAGE, ",".join(str(number) for number in usage)))
        return headers + list(more)

    def new_id(self, answer=None):
        """A fresh test id; with `answer`, the upstream answers so to the requests that carry it."""
        test_id = f"t{next(NUMBERS)}"
        if answer is not None:
            self.upstream.scripts[test_id] = answer
        return test_id

    def connect(self, edges=False):
        return http.Connection(self.envoy.port, self.envoy.read_from_clients if edges else None)

    def post(self, tenant, body, usage=None, answer=None, headers=(), path=CHAT, framing="length", pieces=None,
             edges=False, on=None):
        """Sends `body` (bytes), whole or in `pieces`, and reads the answer. `on`: an open connection to use."""
        test_id = self.new_id(answer)
        connection = on or self.connect(edges)
        try:
            self.send(connection, test_id, tenant, pieces or [body], usage, headers, path, framing)
            response = connection.read()
        finally:
            if on is None:
                connection.close()
        response.id = test_id
        if any(name.startswith("x-bursar-") for name, _ in response.headers):
            self.metered.add(test_id)
        return response

    def send(self, connection, test_id, tenant, pieces, usage=None, headers=(), path=CHAT, framing="length"):
        how = ("transfer-encoding", "chunked") if framing == "chunked" else ("content-length", sum(map(len, pieces)))
        head = http.head("POST", path, self.headers(tenant, test_id, usage, [how] + list(headers)))
        body = http.chunked(pieces) if framing == "chunked" else pieces
        if connection.read_by_envoy:
            connection.send(head, *body)
        else:
            send_unless_refused(connection, head + b"".join(body))

    def chat(self, tenant, usage=None, answer=None, headers=(), on=None, **body):
        """One chat completion; `usage` is (prompt, completion[, cached]) as the upstream shall report it."""
        return self.post(tenant, chat_body(**body), usage, answer, headers, on=on)

    def get(self, path, method="GET", headers=(), answer=None):
        test_id = self.new_id(answer)
        with self.connect() as connection:
            connection.send(http.head(method, path, [("host", "llm.test"), (TEST_ID, test_id)] + list(headers)))
            response = connection.read(method)
        response.id = test_id
        return response

    # --- asking ---

    def seen(self, response):
        """The one request that the upstream got for this answer."""
        requests = self.upstream.of(response.id)
        assert len(requests) == 1, f"the upstream got {len(requests)} requests for {response}"
        return requests[0]

    def log(self, response):
        """The access log's entry, after which the request is settled."""
        return self.envoy.logged(response.id)

    def settle_all(self, responses):
        """Returns when all of these requests are settled."""
        wanted = {response.id for response in responses}
        until(lambda: wanted <= self.envoy.access_log().keys(), "all requests to be logged")

    def spend(self, tenant, tokens):
        """Has `tenant` spend exactly so many tokens."""
        response = self.chat(tenant, usage=(tokens, 0))
        assert response.status == 200, response
        entry = self.log(response)
        assert entry["charged"] == tokens, entry
        return response

    def remaining(self, tenant):
        """What the metric tells; 0 for a tenant of whom it tells nothing."""
        return self.envoy.metric("bursar_budget_remaining", tenant=tenant)

    def left(self, tenant):
        """What the tenant's own record holds, as a request that costs nothing finds it."""
        return self.log(self.chat(tenant, usage=(0, 0)))["remaining"]

    def metrics(self):
        """All metrics, once they have what the access log has, and that all answers so far: counters are told each second."""
        until(lambda: self.metered <= self.envoy.access_log().keys(), "all answers to be logged")
        entries = self.envoy.all_entries
        due = {"bursar_requests_total": sum(entry["decision"] is not None and entry["settled_by"] is not None for entry in entries),
               "bursar_shadow_total": sum(entry["shadow"] is not None for entry in entries),
               "bursar_settlements_total": sum(entry["settled_by"] is not None for entry in entries),
               # Told beside it, but not in one step with it.
               "bursar_exits_total": sum(entry["settled_by"] is not None for entry in entries),
               "bursar_throttled_total": sum((entry["details"] or "").startswith("bursar_") for entry in entries)}

        def told():
            now = self.envoy.metrics()
            return all(metrics.total(now, name) >= count for name, count in due.items())
        until(told, f"{due} to be counted")
        # Envoy lists its metrics and then reads them: one that was made between the two is in the next reading only.
        return self.envoy.metrics()

    def metric(self, name, **labels):
        return metrics.total(self.metrics(), name, **labels)

    def tokens(self, **labels):
        """bursar_tokens_total by kind."""
        now = self.metrics()
        return {kind: metrics.total(now, "bursar_tokens_total", kind=kind, **labels)
                for kind in ("input", "cached_input", "output")}


def send_unless_refused(connection, data):
    """Envoy may answer and close before it has read everything; then the answer is what counts."""
    try:
        connection.send(data)
    except (BrokenPipeError, ConnectionResetError):
        pass
