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


CONFIG = plugin_config({"gold": {"budget": budget(BUDGET)}})


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


def test_an_update_and_its_rollback_lose_no_request_and_no_spend(start_rig):
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
    assert rig.left(tenant) == BUDGET - 15 * len(responses), "each reads what the other wrote"
    assert rig.metric("bursar_state_corrupt_total") == 0


def test_each_module_goes_on_with_what_the_other_spent(rig):
    tenant = rig.tenant("gold")
    spent = 0
    for module in (OTHER, envoy.WASM, OTHER, envoy.WASM):
        exchange(rig, module, drained=True)
        rig.spend(tenant, 1_000)
        spent += 1_000
        assert rig.left(tenant) == BUDGET - spent


def test_another_vm_id_is_another_ledger_and_the_one_that_was_left_is_gone(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 1_000)
    exchange(rig, envoy.WASM, vm_id="another", drained=True)
    assert rig.left(tenant) == BUDGET, "an update under another vm_id gives every budget anew"
    rig.spend(tenant, 500)
    exchange(rig, OTHER, vm_id="bursar", drained=True)
    assert rig.left(tenant) == BUDGET, "and so does the way back: a ledger ends with its last VM"
