"""What operators change in the store with `make budgets`, over a real Redis and a real Valkey, without any proxy."""

import hashlib
import os
import subprocess
import sys

import pytest

from harness import stores
from harness.envoy import ROOT

USER = stores.shipped_user("swordfish", "operator")
SCRIPT = stores.script()


@pytest.fixture(params=stores.SERVERS)
def store(request, tmp_path):
    store = stores.Store(request.param, tmp_path)
    store.call(stores.command("ACL", "SETUSER", *USER))
    yield store
    store.stop()


def budgets(store, *words, by="ann", password="swordfish"):
    env = {**os.environ, "BURSAR_REDIS": f"redis://operator@127.0.0.1:{store.port}", "BURSAR_REDIS_PASSWORD": password}
    words = [*words, *(["--by", by] if words[0] in ("raise", "set", "unset", "reset") else [])]
    return subprocess.run([sys.executable, "envoy/budgets.py", "--domain", "llm", *words], cwd=ROOT, capture_output=True, text=True, env=env)


def said(store, *words, **how):
    ran = budgets(store, *words, **how)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def refused(store, *words, **how):
    ran = budgets(store, *words, **how)
    assert ran.returncode != 0 and "Traceback" not in ran.stderr, ran.stdout + ran.stderr
    return ran.stderr


def line(store, tenant, limit, unit, holder, granted, used, want, budget, generation=0, window=1_000_000, seq=[0]):
    """What a proxy says of a limit: (grant, generation, raise); the budget counts what is set."""
    seq[0] += 1
    key = f"bursar:{{llm/{tenant}/{limit}}}:{unit}:{generation}:{window}"
    numbers = (seq[0], granted, used, want, want, budget, window, 0, 0, 0, 24_000)
    told = store.call(stores.command("EVAL", SCRIPT, 1, key, holder, *numbers))
    told = [int(text[1:]) for text in told.split(b"\r\n")[1:11]]
    assert told[0] == 0, told
    return told[1], told[7], told[9]


def test_a_raise_is_what_proxies_are_granted_and_its_end_is_too(store):
    assert line(store, "acme", "month", "usd", "a", 0, 0, 500_000_000, 500_000_000)[0] == 500_000_000
    assert "200.00 USD more, until 2031-12-01T00:00:00Z" in said(store, "raise", "acme", "month", "200", "--until", "2031-12-01")
    granted = line(store, "acme", "month", "usd", "a", 500_000_000, 400_000_000, 1_000_000_000, 500_000_000)
    assert granted == (200_000_000, 0, 200_000_000)
    told = said(store, "show", "acme")
    for part in ("acme, month, window since 1970-01-01T00:16:40Z", "budget, as last told   700.00 USD", "used, as last told     400.00 USD, by 1",
                 "granted to them        700.00 USD", "raised by              200.00 USD until 2031-12-01T00:00:00Z",
                 "ann: raised by 200.00 USD until 2031-12-01T00:00:00Z"):
        assert part in told, told
    # Another one takes its place; unset, there is none.
    said(store, "raise", "acme", "month", "0.5", by="bob")
    assert line(store, "acme", "month", "usd", "a", 0, 0, 0, 500_000_000) == (0, 0, 500_000)
    said(store, "unset", "acme", "month", by="cyd")
    assert line(store, "acme", "month", "usd", "a", 0, 0, 0, 500_000_000) == (0, 0, 0)
    told = said(store, "show", "acme", "month")
    assert "raised by    " not in told and "set to" not in told
    book = [text.strip() for text in told.splitlines() if ": rais" in text or "unset" in text]
    assert [entry.split("  ")[1].split(":")[0] for entry in book] == ["ann", "bob", "cyd"], told
    assert all(entry[:2] == "20" and entry[19] == "Z" for entry in book)


def test_what_is_set_stands_in_the_place_of_the_configured_budget_and_a_raise_is_beside_it(store):
    line(store, "acme", "day", "tokens", "a", 0, 0, 0, 900)
    said(store, "set", "acme", "day", "400")
    said(store, "raise", "acme", "day", "50")
    assert line(store, "acme", "day", "tokens", "a", 0, 0, 1_000, 900) == (450, 0, 50)
    told = said(store, "show", "acme")
    assert "set to                 400 tokens" in told and "budget, as last told   450 tokens" in told and "ann: set to 400 tokens" in told, told
    said(store, "unset", "acme", "day")
    assert line(store, "acme", "day", "tokens", "a", 450, 450, 1_000, 900) == (450, 0, 0)


def test_a_reset_begins_anew_also_where_the_store_has_forgotten_the_one_before(store):
    assert line(store, "acme", "day", "tokens", "a", 0, 0, 900, 900) == (900, 0, 0)
    said(store, "reset", "acme", "day")
    grant, generation, _ = line(store, "acme", "day", "tokens", "a", 900, 900, 900, 900)
    assert grant == 900 and generation > 1_700_000_000_000
    assert "reset " in said(store, "show", "acme")
    store.call(stores.command("FLUSHALL"))
    line(store, "acme", "day", "tokens", "b", 0, 0, 900, 900)
    said(store, "reset", "acme", "day")
    assert line(store, "acme", "day", "tokens", "a", 900, 900, 10, 900, generation)[1] > generation


def test_the_emptiest_budgets_come_first(store):
    for tenant, granted in (("acme", 100), ("globex", 700), ("initech", 500)):
        line(store, tenant, "day", "tokens", "a", granted, granted // 2, 0, 1_000)
    rows = said(store, "top", "2").splitlines()
    assert [row.split()[0] for row in rows[1:]] == ["globex", "initech"]
    assert rows[1].split() == ["globex", "day", "700", "tokens", "350", "tokens", "70.0", "%"]


def test_what_cannot_be_is_refused_and_changes_nothing(store):
    assert "is not known to the store yet" in refused(store, "raise", "acme", "month", "200")
    line(store, "acme", "day", "tokens", "a", 0, 0, 10, 900)
    before = store.call(stores.command("DBSIZE"))
    for words, why in ((("200.5",), "no whole number of tokens"), (("0",), "above 0"), (("-5",), ""), (("many",), "is no amount"),
                       (("nan",), "is no amount"), (("1e30",), "at most"), (("5", "--until", "tomorrow"), "neither a day"),
                       (("5", "--until", "2020-01-01"), "is over")):
        assert why in refused(store, "raise", "acme", "day", *words), words
    assert "invalid username-password" in refused(store, "show", password="guess")
    assert "nothing of that" in refused(store, "show", "nobody")
    assert store.call(stores.command("DBSIZE")) == before
    said(store, "raise", "acme", "day", "5", "--unit", "usd")
    assert "in both" in refused(store, "reset", "acme", "day")
    # A raise may come before the first request. Its names are those that the filter writes.
    said(store, "raise", "a/b c}é", "x:y", "7", "--unit", "tokens")
    assert line(store, "a%2Fb%20c%7D%C3%A9", "x%3Ay", "tokens", "a", 0, 0, 0, 10) == (0, 0, 7)
    assert "a/b c}é, x:y" in said(store, "show", "a/b c}é")


def test_who_has_no_password_may_do_nothing(tmp_path):
    store = stores.Store("redis-server", tmp_path, conf=ROOT / "envoy" / "redis.conf")
    try:
        assert store.call(stores.command("FLUSHALL")).startswith(b"-NOAUTH")
        assert b"+OK" in store.call(stores.command("AUTH", "operator", "change-me"))
    finally:
        store.stop()


@pytest.mark.parametrize("name", ["script", "rates"])
def test_the_script_is_the_one_that_proxies_call(name):
    assert hashlib.sha1(stores.script(name).encode()).hexdigest() in (ROOT / "src" / "lease" / "call.rs").read_text()
