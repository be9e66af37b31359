"""One token bucket for several Envoys of two workers each, over a real store: what all of them together let through."""

import time

from harness import stores
from harness.config import bucket
from harness.fleet import ask, served
from harness.wait import in_parallel, until

BIG = 1_000
KEY = "bursar:{llm/gold-0/bucket}:rate"


def shares(store):
    """Each proxy's share in millionths, as the store has it."""
    fields = store.call(stores.command("HGETALL", KEY)).split(b"\r\n")
    texts = [field for field in fields if field and field[:1] not in b"*$"]
    return {name: int(text.split()[1]) for name, text in zip(texts[::2], texts[1::2]) if name.startswith(b"p:")}


def largest(store):
    return max(shares(store).values(), default=0)


# A rate at which half an hour brings back less than a request.
def test_a_burst_on_all_proxies_is_no_more_than_one_bucket_holds(fleet, store):
    fleet = fleet({"gold": {"bucket": bucket(20 * BIG, "10h")}}, proxies=3)
    start = time.monotonic()
    burst = in_parallel(12, lambda at: ask(fleet.rigs[at % 3], "gold-0"), range(90))
    assert {response.status for response in burst} <= {200, 429}, burst
    assert time.monotonic() - start < 1_800
    assert 1 <= served(burst) <= 20
    assert sum(shares(store).values()) <= 1_000_000


def test_what_one_proxy_does_not_ask_for_another_has_and_it_moves_with_what_is_asked(fleet, store):
    fleet = fleet({"gold": {"bucket": bucket(60 * BIG, "1m")}})
    for rig in fleet.rigs:
        # This one asks for all there is, and the other for nothing.
        names = []

        def mostly():
            ask(rig, "gold-0", used=2 * BIG)
            if not names and largest(store) > 900_000:
                names.append(max(shares(store), key=shares(store).get))
            return names

        until(mostly, "most of the rate to be this proxy's", seconds=60)
    ask(fleet.rigs[0], "gold-0")
    assert sum(shares(store).values()) <= 1_000_000


def test_the_share_of_a_proxy_that_was_killed_comes_back(fleet, store):
    fleet = fleet({"gold": {"bucket": bucket(60 * BIG, "1m")}})
    first, second = fleet.rigs
    until(lambda: ask(first, "gold-0", used=2 * BIG) and largest(store) > 900_000, "most of it to be the first one's", seconds=60)
    dead = max(shares(store), key=shares(store).get)
    fleet.kill(first)
    # Its silence is four times the longest pause and what a line is waited for: twelve seconds.
    until(lambda: ask(second, "gold-0", used=2 * BIG) and not shares(store).get(dead) and largest(store) > 900_000,
          "its share to be the second one's", seconds=120)
    until(lambda: ask(second, "gold-0").status == 200, "a request to be served", seconds=60)


def test_while_the_store_is_frozen_a_share_stands_for_a_while_and_no_longer(fleet, store):
    fleet = fleet({"gold": {"bucket": bucket(600 * BIG, "1m")}})
    rig = fleet.rigs[0]
    until(lambda: ask(rig, "gold-0").status == 200, "a share")
    store.freeze()
    try:
        assert ask(rig, "gold-0").status == 200
        until(lambda: ask(rig, "gold-0", used=100).status == 429, "the share to lapse", seconds=60)
        # Nothing of it is left: what comes back in a minute would be six hundred of these.
        lapsed = [ask(rig, "gold-0", used=100) for _ in range(10)]
        assert {(answer.status, answer.header("x-bursar-reason")) for answer in lapsed} == {(429, "global_unreachable")}, lapsed
    finally:
        store.thaw()
    until(lambda: ask(rig, "gold-0").status == 200, "the store to be found again", seconds=60)


def test_a_bucket_of_local_scope_asks_nobody(fleet, store):
    fleet = fleet({"gold": {"bucket": bucket(20 * BIG, "10h"), "scope": "proxy"}})
    # More than one bucket of them holds.
    assert served([ask(rig, "gold-0") for rig in fleet.rigs for _ in range(15)]) == 30
    assert store.call(stores.command("DBSIZE")) == b":0\r\n"
