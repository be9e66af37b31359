"""What a trap costs: one worker's open streams at once, and what they held for as long as reservations live."""

import pytest

from harness import answers
from harness.config import budget, plugin_config
from harness.envoy import ROOT
from harness.rig import Rig, chat_body
from harness.wait import until

STREAMS = 50
EXPIRY_SECONDS = 6
BODY = chat_body(max_tokens=100, stream=True)
HELD = len(BODY) + 100   # by each stream


@pytest.fixture
def rig(tmp_path):
    config = plugin_config({"gold": {"budget": budget(1_000_000)}}, reservation_expiry=f"{EXPIRY_SECONDS}s")
    rig = Rig(tmp_path, config, wasm=ROOT / "target" / "bursar-trap.wasm", traps=True, concurrency=1)
    try:
        yield rig.wait_ready()
    finally:
        rig.stop()


def open_stream(rig, tenant, gate):
    """A stream whose first event has come."""
    first, *rest = answers.stream("gpt-4o", answers.usage(5, 5))
    answer = answers.Answer([first, gate.passed, *rest], headers=[("content-type", "text/event-stream")],
                            framing="chunked")
    connection = rig.connect()
    rig.send(connection, rig.new_id(answer), tenant, [BODY])
    assert connection.read_head().status == 200
    return connection


# A hold that leaks becomes a refusal that nobody can explain.
def test_a_trap_cuts_the_streams_of_its_worker_and_what_they_held_comes_back(rig):
    tenant, other, gate = rig.tenant("gold"), rig.tenant("gold"), answers.Gate()
    streams = [open_stream(rig, tenant, gate) for _ in range(STREAMS)]
    rig.spend(other, 1_000)
    response = rig.chat(tenant, headers=[("x-trap", "now")])
    assert response.status == 503

    # The next request has a fresh VM; a VM that was just loaded is given a second before it is loaded again.
    after = until(lambda: (lambda answer: answer.status == 200 and answer)(rig.chat(tenant, usage=(0, 0))), "a new VM")
    # State outlives the VM: nobody was told of the streams' end, so they are still held for.
    assert rig.log(after)["remaining"] == 1_000_000 - STREAMS * HELD
    assert rig.left(other) == 1_000_000 - 1_000
    until(lambda: rig.left(tenant) == 1_000_000, "the reservations to expire", EXPIRY_SECONDS + 10)
    assert rig.envoy.metric("bursar_state_corrupt_total") == 0
    print(f"\na trap with {STREAMS} open streams: {STREAMS * HELD} tokens held for {EXPIRY_SECONDS} s, none lost")
    gate.open()
    for stream in streams:
        stream.close()
