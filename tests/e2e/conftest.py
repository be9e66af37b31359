"""Fixtures: Envoys are started once per module and configuration, since a start costs about a second."""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness.fleet import Fleet, lasting_store  # noqa: E402
from harness.rig import Rig  # noqa: E402


def pytest_collection_modifyitems(items):
    """Files of few tests come first: those take longest each, and none must be left for one process at the end."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: tests[item.path])


@pytest.fixture(scope="module")
def start_rig(tmp_path_factory):
    """start_rig(plugin_config, mode=..., ...) -> a Rig that is stopped, and asked how it went, after the module."""
    rigs = []

    def start(plugin_config, **how):
        rig = Rig(tmp_path_factory.mktemp("envoy"), plugin_config, **how)
        rigs.append(rig)
        return rig.wait_ready()

    yield start
    faults = []
    for rig in rigs:
        try:
            rig.stop()
        except AssertionError as fault:
            faults.append(str(fault))
    assert not faults, "\n".join(faults)


@pytest.fixture
def store(tmp_path):
    """A store that keeps what it is told over a restart."""
    store = lasting_store(tmp_path)
    yield store
    store.stop()


@pytest.fixture
def fleet(tmp_path, store):
    """fleet(plans, ...) -> Envoys that share that store, stopped after the test."""
    fleets = []

    def start(plans, **how):
        fleets.append(Fleet(tmp_path, store, plans, **how))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.stop()
