"""Two Envoys that overlap in a hot restart: what each of them says of a tenant's budget."""

import pytest

from harness.config import budget, plugin_config
from harness.rig import Rig

INITIAL = 100_000
CONFIG = plugin_config({"gold": {"budget": budget(INITIAL)}})
# How long the parent stays: enough for a request to the child.
PARENT_STAYS = ["--parent-shutdown-time-s", "20"]


@pytest.fixture
def parent(tmp_path):
    """It ends by itself, when its child says so."""
    options = ["--use-dynamic-base-id", "--base-id-path", str(tmp_path / "base_id"), *PARENT_STAYS]
    rig = Rig(tmp_path, CONFIG, hot_restart=options)
    yield rig.wait_ready()
    rig.envoy.kill()
    rig.upstream.stop()


# Envoy adds the gauges of a parent to those of its child until the parent has gone. State is a process's own.
def test_gauges_come_right_when_the_parent_has_gone_and_spend_begins_anew(start_rig, parent, tmp_path):
    tenant = parent.tenant("gold")
    parent.spend(tenant, 300)
    assert parent.remaining(tenant) == INITIAL - 300
    base_id = (tmp_path / "base_id").read_text().strip()
    child = start_rig(CONFIG, hot_restart=["--base-id", base_id, "--restart-epoch", "1", *PARENT_STAYS])
    child.spend(tenant, 500)
    both, has_gone = child.remaining(tenant), parent.envoy.process.poll() is not None
    assert has_gone or both == INITIAL - 300 + INITIAL - 500
    assert parent.envoy.process.wait(60) == 0
    assert child.remaining(tenant) == INITIAL - 500
    assert child.left(tenant) == INITIAL - 500
