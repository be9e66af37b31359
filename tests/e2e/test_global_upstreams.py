"""An upstream that refuses one proxy: the others that share the store leave it alone, too, and come back to it with the first that is served."""

import pytest

from harness import answers, stores
from harness.config import budget
from harness.fleet import BIG, USER
from harness.rig import MODES
from harness.wait import until
from test_overview import with_report

PLANS = {"gold": {"budget": budget(1_000 * BIG)}, "loyal": {"budget": budget(1_000 * BIG), "never_downgrade": True}}
LONG = 300   # seconds, far beyond the test's end


def refused():
    answer = answers.error(429)
    answer.headers.append(("retry-after", LONG))
    return answer


def pressed(rig):
    return rig.metric("bursar_tier_pressed", tier="default", model="gpt-4o")


def tier(rig, model="gpt-4o"):
    return rig.chat("gold-0", model=model).header("x-bursar-tier")


def hears(rig):
    """Whether a proxy with traffic of its own knows of the refusal. That traffic is for another model: its success would prove the opposite."""
    assert tier(rig, "gpt-4.1-mini") == "standard"
    return pressed(rig) == 1


# With the report's listener beside the other, as envoy.yaml has it.
@pytest.fixture(params=MODES)
def rigs(fleet, request):
    return fleet(PLANS, mode=request.param, change=with_report).rigs


def test_what_one_proxy_was_refused_the_other_does_not_ask_for(rigs, store):
    one, other = rigs
    assert {tier(rig) for rig in rigs} == {"default"}
    assert one.chat("gold-0", answer=refused()).status == 429
    until(lambda: hears(other), "the other proxy to hear of it")
    assert {tier(rig) for rig in rigs} == {"standard"}
    # Whoever must not be lowered goes on asking, and is served.
    assert one.chat("loyal-0").header("x-bursar-tier") == "default"
    for rig in rigs:
        until(lambda: tier(rig) == "default", "all to come back")
    until(lambda: [pressed(rig) for rig in rigs] == [0, 0], "the gauges to say so")


def test_it_is_reported_once_the_store_is_back(rigs, store):
    one, other = rigs
    assert {tier(rig) for rig in rigs} == {"default"}
    store.kill()
    assert one.chat("gold-0", answer=refused()).status == 429
    until(lambda: "does not answer" in one.envoy.log(), "the proxy to miss the store")
    assert tier(other) == "default"
    assert pressed(other) == 0
    store.start()
    store.call(stores.command("ACL", "SETUSER", *USER))
    until(lambda: hears(other), "the other proxy to hear of it")
