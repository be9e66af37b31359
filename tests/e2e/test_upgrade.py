"""Another module takes this one's place in a running Envoy, under load, and gives it back.

`make upgrade REV=d7dc505` runs it with the module of another commit; without, the other one is of this commit, but another binary.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import envoy
from harness.config import budget, plugin_config

OTHER = Path(os.environ.get("OTHER_MODULE") or envoy.ROOT / "target/bursar-trap.wasm").resolve()
BUDGET = 10_000_000

# Only what the other module knows, too: a filter refuses a configuration with a key that it does not know.
YOUNGER_KEYS = ("credentials", "metrics")
CONFIG = {key: value for key, value in plugin_config({"gold": {"budget": budget(BUDGET)}}).items() if key not in YOUNGER_KEYS}


@pytest.fixture
def rig(start_rig):
    return start_rig(CONFIG, wasm=OTHER, lds=True)


class Load:
    """Clients that ask all the time, each a request of 15 tokens."""

    def __init__(self, rig, tenant):
        self.rig, self.tenant = rig, tenant
        self.is_over = threading.Event()
        self.pool = ThreadPoolExecutor(4)
        self.clients = [self.pool.submit(self._client) for _ in range(4)]

    def _client(self):
        responses = []
        while not self.is_over.is_set():
            responses.append(self.rig.chat(self.tenant, usage=(10, 5)))
        return responses

    def end(self):
        self.is_over.set()
        self.pool.shutdown()
        return [response for client in self.clients for response in client.result()]


def exchange(rig, module, vm_id=None, drained=False):
    envoy.render.set_wasm(rig.envoy.doc, module)
    if vm_id is not None:
        envoy.render.wasm_config(rig.envoy.doc)["vm_config"]["vm_id"] = vm_id
    rig.envoy.update(rig.config, drained=drained)


def spend(rig, tenant, tokens):
    """As `Rig.spend`, but whatever the module in place writes into the access log."""
    rig.log(rig.chat(tenant, usage=(tokens, 0)))


@pytest.fixture(scope="module")
def is_read_back(start_rig):
    """Whether the other module reads what this one writes. This one reads what the other writes, always."""
    rig = start_rig(CONFIG, wasm=OTHER, lds=True)
    tenant = rig.tenant("gold")
    spend(rig, tenant, 1_000)
    exchange(rig, envoy.WASM, drained=True)
    spend(rig, tenant, 1_000)
    assert rig.left(tenant) == BUDGET - 2_000
    exchange(rig, OTHER, drained=True)
    spend(rig, tenant, 1_000)
    exchange(rig, envoy.WASM, drained=True)
    left = rig.left(tenant)
    assert left in (BUDGET - 3_000, BUDGET - 1_000), "all is kept, or for the other module all begins anew"
    is_read = left == BUDGET - 3_000
    assert is_read or "OTHER_MODULE" in os.environ, "the module of this commit reads its own records"
    return is_read


def test_an_update_and_its_rollback_lose_no_request_and_no_spend(start_rig, is_read_back):
    # Requests of the module before have as long as they take: Envoy's own default is ten minutes.
    rig = start_rig(CONFIG, wasm=OTHER, lds=True, drain_seconds=600)
    tenant = rig.tenant("gold")
    load = Load(rig, tenant)
    try:
        # There, back, and there again, while requests of the one before are under way: old and new side by side on one vm_id.
        for module in (envoy.WASM, OTHER, envoy.WASM, OTHER, envoy.WASM):
            exchange(rig, module)
    finally:
        responses = load.end()
    assert {response.status for response in responses} == {200}
    rig.settle_all(responses)
    if is_read_back:
        assert rig.left(tenant) == BUDGET - 15 * len(responses), "each reads what the other wrote"
        assert rig.metric("bursar_state_corrupt_total") == 0
    else:
        print("the other module does not read this one's records: spend began anew")
        assert rig.left(tenant) > BUDGET - 15 * len(responses)
        assert rig.metric("bursar_state_corrupt_total") > 0, "which is how operators see it"


def test_another_vm_id_is_another_ledger_and_the_one_that_was_left_is_gone(rig):
    tenant = rig.tenant("gold")
    spend(rig, tenant, 1_000)
    exchange(rig, envoy.WASM, vm_id="another", drained=True)
    assert rig.left(tenant) == BUDGET, "an update under another vm_id gives every budget anew"
    spend(rig, tenant, 500)
    exchange(rig, OTHER, vm_id="bursar", drained=True)
    spend(rig, tenant, 100)
    exchange(rig, envoy.WASM, vm_id="bursar", drained=True)
    assert rig.left(tenant) == BUDGET - 100, "and so does the way back: a ledger ends with its last VM"
