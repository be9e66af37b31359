"""A real Redis and a real Valkey behind Envoy's raw TCP pool, as budgets of global scope need them: a request's body goes out as it is,
and all that the store says until it closes comes back as one answer."""

import hashlib
import time

import pytest

from harness import envoy, stores
from harness.http import Connection, head
from harness.wait import in_parallel, until

SCRIPT = stores.script().encode()
SHA = hashlib.sha1(SCRIPT).hexdigest()
END = b"+OK\r\n"   # what QUIT is answered with
LINES = 256        # in one call, at the most
BUDGET = 1_000_000


@pytest.fixture(scope="module", params=stores.SERVERS)
def store(request, tmp_path_factory):
    store = stores.Store(request.param, tmp_path_factory.mktemp("store"))
    yield store
    store.stop()


@pytest.fixture(scope="module")
def proxy(store, tmp_path_factory):
    def change(doc):
        doc["static_resources"]["clusters"].append(stores.cluster("store", store.port))
        envoy.add_route(doc, "/", route=envoy.to("store", timeout="0.5s"))
    proxy = envoy.Envoy(tmp_path_factory.mktemp("envoy"), envoy.document(None, 1, change=change)).wait_ready()
    yield proxy
    proxy.stop()


def call(proxy, body):
    """(status, body) of one call through the proxy."""
    connection = Connection(proxy.port)
    try:
        connection.send(head("POST", "/", [("host", "store"), ("content-length", len(body))]) + body)
        answer = connection.read()
        return answer.status, answer.body
    finally:
        connection.close()


def line(key, holder, seq, granted=0, used=0, want=0, least=0, verb=("EVALSHA", SHA)):
    return stores.command(*verb, 1, key, holder, seq, granted, used, want, least, BUDGET, 0, 0, 0, 0, 20_000)


def grants(body):
    """What was granted by each answer; anything but whole answers fails."""
    assert body.endswith(END), body[-200:]
    answers = body[:-len(END)].split(b"*10\r\n")
    assert answers[0] == b"", body[:200]
    numbers = [[int(number) for number in answer.replace(b":", b"").split()] for answer in answers[1:]]
    assert all(len(each) == 10 and each[0] == 0 for each in numbers), numbers
    return [each[1] for each in numbers]


def test_a_full_call_has_all_of_its_answers(store, proxy):
    key = "bursar:{full}:tokens:0:0"
    body = line(key, "0", 1, want=1, verb=("EVAL", SCRIPT))
    body += b"".join(line(key, "0", seq, granted=seq - 1, want=1) for seq in range(2, LINES + 1))
    status, body = call(proxy, body + stores.command("QUIT"))
    assert status == 200
    assert grants(body) == [1] * LINES


# Many proxies at once: what they are granted is the budget, to the cell.
def test_what_is_granted_to_many_at_once_is_the_budget(store, proxy):
    key, holders = f"bursar:{{many{time.monotonic_ns()}}}:tokens:0:0", 40
    assert call(proxy, line(key, "first", 1, verb=("EVAL", SCRIPT)) + stores.command("QUIT"))[0] == 200

    def spend(holder):
        granted = 0
        for seq in range(1, 26):
            status, body = call(proxy, line(key, holder, seq, granted, granted, 3_000, 3_000) + stores.command("QUIT"))
            assert status == 200
            granted += sum(grants(body))
        return granted

    assert sum(in_parallel(8, spend, range(holders))) == BUDGET


def test_a_store_that_does_not_answer_is_told_from_one_that_does(store, proxy):
    ping = stores.command("PING") + stores.command("QUIT")
    whole = (200, b"+PONG\r\n" + END)
    assert call(proxy, ping) == whole
    store.freeze()
    try:
        # The kernel takes the connection, so that Envoy has begun an answer when its time is up: it has nothing in it.
        assert call(proxy, ping) == (200, b"")
    finally:
        store.thaw()
    assert until(lambda: call(proxy, ping) == whole, "the store after a thaw")
    store.kill()
    status, body = call(proxy, ping)
    assert (status, body[:16]) == (503, b"upstream connect")
    store.start()
    assert until(lambda: call(proxy, ping) == whole, "the store after a restart")
    # It has no scripts any more.
    status, body = call(proxy, line("bursar:{x}", "0", 1) + stores.command("QUIT"))
    assert status == 200 and body.startswith(b"-NOSCRIPT ") and body.endswith(END)
