"""Gauges of what is left are true at the scrape: while nobody asks, and after another configuration has come."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import answers
from harness.config import TIERS, BY_HEADER, budget
from harness.wait import until

TENANTS = {
    "short": {"budget": budget(400, "12s")},
    "dollars": {"limits": [{"name": "month", "budget": budget(5, "month", "usd")}]},
    "rates": {"limits": [{"name": "rpm", "bucket": {"requests_per_window": 60, "window": "1m"}}], "concurrency": 2},
    "absent": {"budget": budget(1_000, "day")},
}


def config(tenants=TENANTS, **more):
    return dict({"tenant": BY_HEADER, "tiers": TIERS, "tenants": tenants}, **more)


@pytest.fixture(scope="module")
def rig(start_rig):
    return start_rig(config())


def gauge(rig, name, tenant, limit="budget", unit="tokens"):
    """The gauge; None where there is none."""
    wanted = {("tenant", tenant), ("limit", limit), ("unit", unit)}
    found = [value for (key, labels), value in rig.envoy.metrics().items() if key == name and wanted <= labels]
    return found[0] if found else None


def test_a_tenant_that_stays_away_has_gauges(rig):
    until(lambda: gauge(rig, "bursar_remaining", "absent") == 1_000, "the gauge")
    assert gauge(rig, "bursar_limit", "absent") == 1_000
    assert gauge(rig, "bursar_used", "absent") == gauge(rig, "bursar_held", "absent") == 0
    midnight = (time.time() // 86_400 + 1) * 86_400
    assert gauge(rig, "bursar_reset_timestamp_seconds", "absent") == midnight


def test_it_falls_to_the_truth_when_the_window_has_ended_while_nobody_asks(rig):
    until(lambda: time.time() % 12 < 4, "a window's beginning")
    rig.chat("short", usage=(200, 12))
    until(lambda: gauge(rig, "bursar_remaining", "short") == 188, "the gauge to follow")
    end = gauge(rig, "bursar_reset_timestamp_seconds", "short")
    until(lambda: gauge(rig, "bursar_remaining", "short") == 400, "the window's end")
    assert 0 <= time.time() - end < 3
    assert gauge(rig, "bursar_reset_timestamp_seconds", "short") > time.time()
    assert rig.remaining("short") == 400


def test_money_requests_and_requests_in_flight_have_units_of_their_own(rig):
    rig.chat("dollars", usage=(1_000_000, 0))
    until(lambda: gauge(rig, "bursar_remaining", "dollars", "month", "usd_micros") == 2_500_000, "the gauge")
    gate = answers.Gate()
    answer = answers.Answer([gate.passed, answers.completion("gpt-4o", answers.usage(5, 5))])

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(rig.chat, "rates", answer=answer)
        gate.wait_until_reached()
        until(lambda: gauge(rig, "bursar_held", "rates", "concurrency", "requests") == 1, "the slot to be told")
        assert gauge(rig, "bursar_remaining", "rates", "concurrency", "requests") == 1
        assert gauge(rig, "bursar_limit", "rates", "rpm", "requests") == 60
        gate.open()
    rig.settle_all([waiting.result()])
    until(lambda: gauge(rig, "bursar_held", "rates", "concurrency", "requests") == 0, "the slot to be free")
    assert gauge(rig, "bursar_reset_timestamp_seconds", "rates", "concurrency", "requests") is None


def test_the_first_tenants_have_gauges_and_the_others_none_before_they_ask(start_rig):
    tenants = {f"t{n}": {"budget": budget(1_000, "day")} for n in range(500)}
    rig = start_rig(config(tenants, metrics={"tenants": 100}))

    def told():
        names = {dict(labels).get("tenant") for (key, labels), _ in rig.envoy.metrics().items() if key == "bursar_remaining"}
        return names if len(names) >= 100 else None
    # Envoy takes its time for each gauge that is new to it.
    assert until(told, "the first tenants' gauges", 60) == {f"t{n}" for n in range(100)}


def test_a_limit_that_is_gone_is_none_and_a_new_one_is_told(start_rig):
    rig = start_rig(config(), lds=True)
    until(lambda: gauge(rig, "bursar_limit", "absent") == 1_000, "the last gauge")
    new = {"short": {"budget": budget(900, "day")}, "absent": {"limits": [{"name": "other", "budget": budget(7, "day")}]}}
    rig.envoy.update(config(new))
    until(lambda: gauge(rig, "bursar_limit", "short") == 900, "the new limit")
    until(lambda: gauge(rig, "bursar_limit", "absent", "other") == 7, "the new name")
    until(lambda: gauge(rig, "bursar_limit", "absent") == 0, "the old name to go")
    until(lambda: gauge(rig, "bursar_limit", "rates", "rpm", "requests") == 0, "the tenant to go")
    assert gauge(rig, "bursar_limit", "short") == 900
