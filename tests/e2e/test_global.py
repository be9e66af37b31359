"""One budget for several Envoys of two workers each, over a real store: what all of them together spend, whatever happens to them or to
it."""

import os
import subprocess
import sys
import time

import pytest

from harness import envoy, stores
from harness.config import budget
from harness.fleet import BIG, PASSWORD, PASSWORD_ENV, USER, accounts, ask, granted, granted_in, served, spend
from harness.rig import MODES, chat_body
from harness.wait import in_parallel, let_pass, until


def gold(budget_tokens, **more):
    return {"gold": {"budget": budget(budget_tokens, "month"), **more}}


# The test: a burst of 20 on room for 2.
@pytest.mark.parametrize("proxies", [2, 4])
def test_a_burst_on_room_for_two_serves_two(fleet, proxies):
    fleet = fleet(gold(2 * BIG + BIG // 2), proxies=proxies)
    burst = in_parallel(20, lambda at: ask(fleet.rigs[at % proxies], "gold-0"), range(20))
    assert {response.status for response in burst} <= {200, 429}
    later = spend(fleet.rigs, "gold-0", 4, seconds=5)
    assert 1 <= served(burst) + served(later) <= 2


def test_all_of_a_budget_is_spent_by_several_proxies_and_not_more(fleet, store):
    fleet = fleet(gold(40 * BIG))
    responses = spend(fleet.rigs, "gold-0", 60)
    assert 38 <= served(responses) <= 40
    assert granted(store, "gold-0") <= 40 * BIG
    # By then the budget is spent, as every proxy says.
    last = until(lambda: [r for r in [ask(rig, "gold-0") for rig in fleet.rigs] if r.header("x-bursar-reason") == "budget_exhausted"],
                 "a proxy to say that it is spent")
    assert last[0].header("x-should-retry") == "false"


# While it waits, Envoy may buffer what has arrived of its body: to more than it can, it would answer 413.
@pytest.mark.parametrize("mode", MODES)
def test_a_long_first_request_is_served_or_told_to_come_back(fleet, mode):
    fleet = fleet(gold(100_000_000), mode=mode)
    for rig in fleet.rigs:
        ask(rig, "gold-7")
    for tenant in ("gold-1", "gold-2", "gold-3"):
        for rig in fleet.rigs:
            first = rig.chat(tenant, text="x" * 3_000_000)
            if first.status != 200:
                assert (first.status, first.header("x-bursar-reason")) == (429, "budget_pending"), first
            until(lambda: rig.chat(tenant, text="x" * 3_000_000).status == 200, "it to be served")


# A fresh proxy holds nothing yet: its first request waits, and is served.
@pytest.mark.parametrize("mode", MODES)
def test_the_first_request_of_a_tenant_waits_for_its_slice(fleet, mode):
    fleet = fleet(gold(10_000 * BIG), mode=mode)
    for rig in fleet.rigs:
        # The store learns the script.
        ask(rig, "gold-7")
    for tenant in ("gold-1", "gold-2"):
        for rig in fleet.rigs:
            start = time.monotonic()
            response = ask(rig, tenant)
            assert response.status == 200, response
            assert time.monotonic() - start < 2
    burst = in_parallel(10, lambda _: ask(fleet.rigs[0], "gold-3", used=100), range(10))
    assert served(burst) == 10, burst
    # A body in pieces, some of which come while the headers wait. Where its length is not told it must fit into a first slice.
    rig, body = fleet.rigs[1], chat_body(text="x" * 30_000, max_tokens=50)
    pieces = [body[at:at + 10_000] for at in range(0, len(body), 10_000)]
    for framing in ("length", "chunked"):
        response = rig.post(f"gold-{4 + (framing == 'chunked')}", body, (10, 10), pieces=pieces, framing=framing)
        assert response.status == 200, response
        assert rig.seen(response).body == body


# Whoever comes once in a while is not sent away each time.
def test_the_first_request_after_a_silence_waits_and_is_served(fleet, store):
    fleet = fleet(gold(10_000 * BIG))
    rig = fleet.rigs[0]
    assert ask(rig, "gold-0").status == 200
    for asked in (2, 3):
        until(lambda: granted(store, "gold-0") == (asked - 1) * BIG, "what is not used to be given back", seconds=30)
        assert ask(rig, "gold-0").status == 200


def test_a_proxy_in_use_asks_for_its_slice_of_the_next_window_by_itself(fleet, store):
    slow = {"redis": {"cluster": "store", "user": "bursar", "password_env": PASSWORD_ENV}, "domain": "llm", "refresh": {"least": "200ms", "most": "10s"}}
    fleet = fleet({"gold": {"budget": budget(10_000 * BIG, "5s")}}, **{"global": slow})
    assert ask(fleet.rigs[0], "gold-0").status == 200
    first = set(accounts(store, "gold-0"))
    # No request comes meanwhile.
    (second,) = until(lambda: set(accounts(store, "gold-0")) - first, "an account of the next window")
    assert granted_in(store, second) > BIG


def test_a_proxy_that_is_killed_and_started_again_finds_what_was_spent(fleet, store):
    fleet = fleet(gold(20 * BIG))
    before = served(spend(fleet.rigs, "gold-0", 10))
    assert before == 10
    for rig in list(fleet.rigs):
        rig.settle_all([])
        fleet.kill(rig)
        fleet.add()
    after = spend(fleet.rigs, "gold-0", 20, seconds=10)
    assert before + served(after) <= 20
    assert served(after) >= 3


def test_a_store_that_is_frozen_killed_and_started_again_forgets_nothing(fleet, store):
    fleet = fleet(gold(30 * BIG))
    total = served(spend(fleet.rigs, "gold-0", 8))
    assert total == 8
    store.freeze()
    frozen = spend(fleet.rigs, "gold-0", 12, seconds=4)
    total += served(frozen)
    reasons = {response.header("x-bursar-reason") for response in frozen if response.status != 200}
    assert reasons <= {"global_unreachable", "budget_pending", "budget_held"}, reasons
    store.thaw()
    total += served(spend(fleet.rigs, "gold-0", 3))
    store.kill()
    total += served(spend(fleet.rigs, "gold-0", 12, seconds=4))
    # A request to a tenant of which nothing is known here is refused while it is away, and says why.
    stranger = ask(fleet.rigs[0], "gold-5")
    assert (stranger.status, stranger.header("x-bursar-reason")) in ((429, "global_unreachable"), (429, "budget_pending"))
    store.start()
    store.call(stores.command("ACL", "SETUSER", *USER))
    until(lambda: ask(fleet.rigs[0], "gold-5").status == 200, "the store to be found again")
    total += served(spend(fleet.rigs, "gold-0", 30))
    assert 27 <= total <= 30, total
    log = fleet.rigs[0].envoy.log()
    assert "does not answer" in log and "answers again" in log


def test_a_store_that_is_wiped_hears_from_all_who_live_what_they_hold(fleet, store):
    fleet = fleet(gold(30 * BIG))
    total = served(spend(fleet.rigs, "gold-0", 15))
    store.call(stores.command("FLUSHALL"))
    total += served(spend(fleet.rigs, "gold-0", 10, seconds=5))
    # Until all have had the time to speak nothing is granted: that takes six seconds with this refresh.
    let_pass(8)
    for rig in fleet.rigs:
        answers = []
        until(lambda: answers.append(ask(rig, "gold-0", used=100)) or len(answers) > 20 or answers[-1].status == 200, "an answer")
    total += served(spend(fleet.rigs, "gold-0", 30))
    assert 24 <= total <= 30, total
    assert any("has lost its data" in rig.envoy.log() for rig in fleet.rigs)


def test_a_wrong_password_is_told_and_nothing_is_spent(fleet):
    fleet = fleet(gold(30 * BIG), proxies=0)
    rig = fleet.add(password="wrong")
    responses = [ask(rig, "gold-0") for _ in range(3)]
    assert served(responses) == 0
    until(lambda: "WRONGPASS" in rig.envoy.log(), "the reason in the log")
    assert PASSWORD not in rig.envoy.log()
    until(lambda: rig.envoy.metric("bursar_global_calls_total", result="not_allowed") > 0, "the calls to be counted")


# A limit of local scope beside it, and tenants whose plan is local, are not touched by any of it.
def test_local_plans_do_not_ask_the_store(fleet, store):
    fleet = fleet({"gold": {"budget": budget(3 * BIG, "month"), "scope": "proxy"}})
    responses = [ask(rig, "gold-0", used=900) for rig in fleet.rigs for _ in range(5)]
    assert served(responses) == 6
    assert store.call(stores.command("DBSIZE")) == b":0\r\n"


def budgets(store, *words):
    env = {**os.environ, "BURSAR_REDIS": f"redis://127.0.0.1:{store.port}"}
    ran = subprocess.run([sys.executable, "envoy/budgets.py", "--domain", "llm", *words], cwd=envoy.ROOT, capture_output=True, text=True, env=env)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


# In force within a refresh, here a second: also for who has been told that all is spent, and was silent since.
def test_a_raise_and_a_reset_are_in_force_within_a_refresh_for_all_proxies_together(fleet, store):
    fleet = fleet(gold(6 * BIG))
    assert 5 <= served(spend(fleet.rigs, "gold-0", 12)) <= 6
    until(lambda: all(ask(rig, "gold-0").header("x-bursar-reason") == "budget_exhausted" for rig in fleet.rigs), "all to say that it is spent")
    budgets(store, "raise", "gold-0", "budget", str(4 * BIG), "--until", "2031-12-01")
    let_pass(3.5)
    first = ask(fleet.rigs[0], "gold-0")
    assert first.status == 200 or first.header("x-bursar-reason") == "budget_pending", first
    more = served([first]) + served(spend(fleet.rigs, "gold-0", 10))
    assert 3 <= more <= 5, more
    assert granted(store, "gold-0") <= 10 * BIG
    last = until(lambda: [r for r in [ask(rig, "gold-0") for rig in fleet.rigs] if r.header("x-bursar-reason") == "budget_exhausted"],
                 "a proxy to say that it is spent")
    assert last[0].header("x-ratelimit-limit-tokens") == str(10 * BIG)
    budgets(store, "unset", "gold-0", "budget")
    budgets(store, "reset", "gold-0", "budget")
    let_pass(3.5)
    again = served(spend(fleet.rigs, "gold-0", 12))
    assert 5 <= again <= 6, again
    # Also a process that starts now.
    fleet.kill(fleet.rigs[0])
    assert served(spend([fleet.add()], "gold-0", 2, seconds=5)) <= 6 - again
    told = budgets(store, "show", "gold-0")
    assert "6,000 tokens" in told and told.count("reset") == 2, told


def test_make_run_shows_a_budget_that_two_envoys_share_and_a_restart_keeps(tmp_path):
    ports = dict.fromkeys(["PORT", "ADMIN_PORT", "SECOND_PORT", "SECOND_ADMIN_PORT", "STANDIN_PORT", "REDIS_PORT"], "0")
    ran = subprocess.run([sys.executable, "envoy/run.py"], cwd=envoy.ROOT, capture_output=True, text=True, timeout=300,
                         env={**os.environ, **ports, "GLOBAL": "1", "TOUR_ONLY": "1", "RUN_DIR": str(tmp_path)})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "one budget, kept" in ran.stdout
