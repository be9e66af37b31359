"""As many requests as the machine can take: an Envoy with bursar, a second one that answers at once, clients that pipeline."""

import json
import re
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import ExitStack

from harness import envoy as harness
from harness.envoy import render
from harness.wait import DEADLINE_SECONDS, until
from upstream import CHAT

CLIENTS = 2        # processes
CONNECTIONS = 16   # of each
PIPELINED = 20     # on each connection; Envoy takes them one after the other
PROMPT, COMPLETION = 5, 7
KNOWN = 12   # requests after which it is known what a tenant's are likely to use: eight that are settled
COST = PROMPT + COMPLETION   # tokens, of every request
BODY = b'{"model":"gpt-4o","max_tokens":7,"messages":[]}'
ANSWER = json.dumps({"object": "chat.completion", "usage": {
    "prompt_tokens": PROMPT, "completion_tokens": COMPLETION, "total_tokens": COST}})
UNMETERED = b"x-bursar-reason: budget_unavailable"
HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}


class Load:
    """`with Load(config, workers) as load`"""

    def __init__(self, plugin_config, workers):
        self.config, self.workers = plugin_config, workers

    def __enter__(self):
        with ExitStack() as stack:
            llm = start(stack, harness.document(None, 9, change=answer_at_once), self.workers)
            started = time.monotonic()
            doc = harness.document(self.config, llm.port, change=prepare)
            self.envoy = start(stack, doc, self.workers)
            self.ready = time.monotonic() - started   # seconds
            self._clients = stack.enter_context(ProcessPoolExecutor(CLIENTS))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def send(self, tenants, meanwhile=None):
        """One request of each of these tenants: (seconds until all were served, how many of them unmetered).
        Until then calls `meanwhile()` again and again."""
        started = time.monotonic()
        jobs = [self._clients.submit(send, self.envoy.port, tenants[n::CLIENTS]) for n in range(CLIENTS)]
        while meanwhile and not all(job.done() for job in jobs):
            meanwhile()
        wait(jobs)
        return time.monotonic() - started, sum(job.result() for job in jobs)

    def ask(self, tenant):
        """One request on a connection of its own: (seconds, what the tenant has left while it is served)."""
        with socket.create_connection(("127.0.0.1", self.envoy.port), DEADLINE_SECONDS) as connection:
            started = time.monotonic()
            connection.sendall(request(tenant))
            told = read(connection, 1)
            return time.monotonic() - started, int(re.search(rb"x-ratelimit-remaining-tokens: (\d+)", told)[1])

    def ask_until_known(self, tenant):
        """As `ask`, once bursar knows what the tenant's requests are likely to use: what is held for one is the same then each time."""
        return [self.ask(tenant) for _ in range(KNOWN)][-1]

    def charged(self, due, **labels):
        """Tokens in bursar's metrics, once they are no fewer than `due`."""
        def told():
            return self.envoy.metric("bursar_tokens_total", **labels)
        until(lambda: told() >= due, f"{due} tokens to be charged")
        return round(told())

    def memory(self):
        """Resident bytes of the Envoy with bursar."""
        return 1024 * int(subprocess.check_output(["ps", "-o", "rss=", "-p", str(self.envoy.process.pid)]))


def start(stack, doc, workers):
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bursar-load-"))
    envoy = harness.Envoy(folder, doc, concurrency=workers)
    stack.push(lambda kind, *_: envoy.kill() if kind else envoy.stop())   # `stop` fails if it died or the filter trapped
    return envoy.wait_ready()


def prepare(doc):
    """HTTP/2 to the LLM: over HTTP/1.1 an Envoy that answers at once closes the connection with each answer."""
    render.hcm(doc).pop("access_log")
    for cluster in render.clusters(doc):
        cluster["typed_extension_protocol_options"] = HTTP2


def answer_at_once(doc):
    render.hcm(doc).pop("access_log")
    render.hcm(doc)["route_config"]["virtual_hosts"][0]["routes"] = [{
        "match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": ANSWER}},
        "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"},
                                     "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}]


# --- clients -----------------------------------------------------------------


def send(port, tenants):
    """How many of them passed unmetered."""
    unmetered = 0
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_SECONDS))
                       for _ in range(CONNECTIONS)]
        for first in range(0, len(tenants), CONNECTIONS * PIPELINED):
            batch = tenants[first:first + CONNECTIONS * PIPELINED]
            shares = [(connection, batch[n::CONNECTIONS]) for n, connection in enumerate(connections)]
            for connection, share in shares:
                connection.sendall(b"".join(map(request, share)))
            unmetered += sum(read(connection, len(share)).count(UNMETERED) for connection, share in shares)
    return unmetered


def request(tenant):
    return (f"POST {CHAT} HTTP/1.1\r\nhost: replay\r\ncontent-type: application/json\r\nx-tenant-id: {tenant}\r\n"
            f"content-length: {len(BODY)}\r\n\r\n").encode() + BODY


def read(connection, count):
    """So many answers, each of which has to be the LLM's."""
    data = b""
    while data.count(ANSWER.encode()) < count:
        more = connection.recv(1 << 18)
        if not more or b"HTTP/1.1 429" in more or b"HTTP/1.1 5" in more:
            raise AssertionError(f"not all of {count} requests were served: {more[-2000:]}")
        data += more
    return data
