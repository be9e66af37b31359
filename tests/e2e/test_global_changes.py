"""One budget for several Envoys whose clocks differ, whose window ends, and that become global while a window is open."""

import contextlib
import re
import time

import pytest

from harness import clocks, stores
from harness.config import budget
from harness.fleet import BIG, Fleet, accounts, ask, granted, granted_in, lasting_store, served, spend
from harness.wait import until

HOUR = 3_600


def said_skew(rig):
    """By how many seconds the store's clock differs, as the log says."""
    return [int(seconds) for seconds in re.findall(r"clock of the store .* differs from this proxy's by (\d+) s", rig.envoy.log())]


@pytest.mark.skipif(clocks.COMPILER is None, reason="there is no C compiler to make another clock with")
def test_clocks_an_hour_apart_change_nothing_where_no_window_ends(fleet, store, tmp_path):
    fleet = fleet({"gold": {"budget": budget(40 * BIG, "none")}}, proxies=1)
    rigs = [*fleet.rigs, fleet.add(env=clocks.ahead(tmp_path, HOUR)), fleet.add(env=clocks.ahead(tmp_path, -HOUR))]
    assert 37 <= served(spend(rigs, "gold-0", 60)) <= 40
    assert granted(store, "gold-0") <= 40 * BIG
    assert not said_skew(rigs[0])
    for rig in rigs[1:]:
        (differs, *_) = until(lambda: said_skew(rig), "the log to say so")
        assert abs(differs - HOUR) <= 1


# An hour ahead is always the next window: of that nothing can be had before the store's clock is there.
@pytest.mark.skipif(clocks.COMPILER is None, reason="there is no C compiler to make another clock with")
def test_who_is_a_window_ahead_waits_for_it_and_takes_nothing_of_it(fleet, store, tmp_path):
    fleet = fleet({"gold": {"budget": budget(40 * BIG, f"{HOUR}s")}}, proxies=1)
    ahead = fleet.add(env=clocks.ahead(tmp_path, HOUR))
    early = [ask(ahead, "gold-0") for _ in range(5)]
    assert {(r.status, r.header("x-bursar-reason")) for r in early} <= {(429, "budget_pending"), (429, "global_unreachable")}
    assert served(spend(fleet.rigs[:1], "gold-0", 60)) >= 38
    assert served([ask(ahead, "gold-0") for _ in range(5)]) == 0
    assert len(store.call(stores.command("KEYS", "bursar:*")).split(b"bursar:")) == 2


# The proxies' clocks end the window, the store's checks it: all have the same, which the test sets from ten minutes before the end to it.
@pytest.mark.skipif(clocks.COMPILER is None, reason="there is no C compiler to make another clock with")
@pytest.mark.parametrize("period", clocks.ENDS)
def test_a_calendar_window_ends_for_all_at_once_and_the_next_one_is_one_budget_again(tmp_path, period):
    end = clocks.ENDS[period](time.time())
    clock = clocks.Clock(tmp_path, int(end - 600 - time.time()))
    with contextlib.ExitStack() as stack:
        store = lasting_store(tmp_path, env=clock.env)
        stack.callback(store.stop)
        fleet = Fleet(tmp_path, store, {"gold": {"budget": budget(20 * BIG, period)}}, env=clock.env)
        stack.callback(fleet.stop)

        def spend_all():
            # What a proxy's slice has left may be less than a request.
            assert 18 <= served(spend(fleet.rigs, "gold-0", 40)) <= 20
            keys = accounts(store, "gold-0")
            assert max(granted_in(store, key) for key in keys) <= 20 * BIG
            return {int(key.rsplit(b":", 1)[1]) // 1000 for key in keys}
        (before,) = spend_all()
        assert before < clock.now() < end
        clock.set_to(end)
        assert spend_all() == {before, end}


def with_scope(fleet, scope):
    plans = {"gold": {**fleet.config["plans"]["gold"], "scope": scope}}
    return {**fleet.config, "plans": plans}


# From local to global: what was spent of the open window is not forgotten, though neither proxy knows of the other's part.
def test_a_budget_that_becomes_global_keeps_what_was_spent_of_the_open_window(fleet, store):
    fleet = fleet({"gold": {"budget": budget(20 * BIG, "month"), "scope": "proxy"}}, lds=True)
    local = [ask(rig, "gold-0") for rig, times in zip(fleet.rigs, (9, 5)) for _ in range(times)]
    assert served(local) == 14
    for rig, spent in zip(fleet.rigs, (9 + 1, 9 + 1 + 5 + 1)):
        rig.settle_all([])
        rig.envoy.update(with_scope(fleet, "global"))
        # Its first line tells what it spent; a slice that it does not need is its own until it gives it back.
        assert served(spend([rig], "gold-0", 1)) == 1
        until(lambda: granted(store, "gold-0") == spent * BIG, "what is not used to be given back")
    later = spend(fleet.rigs, "gold-0", 12, seconds=10)
    assert 2 <= served(later) <= 4, later
    assert granted(store, "gold-0") <= 20 * BIG
    # A process that starts now finds it spent, too.
    fleet.config = with_scope(fleet, "global")
    assert served([ask(fleet.add(), "gold-0")]) <= 4 - served(later)
    # Back again: each process knows what it has spent itself.
    rig = fleet.rigs[0]
    before = 9 + 1 + served(later[::2])
    rig.envoy.update(with_scope(fleet, "proxy"))
    # A request reserves a little more than it uses, so the last one does not fit.
    assert served([ask(rig, "gold-0") for _ in range(25)]) == 19 - before


# Rolled out one after the other: those that are not global yet spend by themselves, and tell it once they are.
def test_a_rollout_of_it_counts_what_the_last_proxies_spend_meanwhile(fleet, store):
    fleet = fleet({"gold": {"budget": budget(20 * BIG, "month"), "scope": "proxy"}}, lds=True)
    first, last = fleet.rigs
    assert served([ask(last, "gold-0") for _ in range(5)]) == 5
    first.envoy.update(with_scope(fleet, "global"))
    assert served(spend([first], "gold-0", 5)) == 5
    # What the first one was granted and does not need is its own until it gives it back, whatever the last one tells meanwhile.
    until(lambda: granted(store, "gold-0") == 5 * BIG, "what is not used to be given back")
    assert served([ask(last, "gold-0") for _ in range(5)]) == 5
    last.settle_all([])
    last.envoy.update(with_scope(fleet, "global"))
    assert served(spend([last], "gold-0", 1)) == 1
    assert 2 <= served(spend(fleet.rigs, "gold-0", 20, seconds=10)) <= 4
