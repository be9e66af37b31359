#!/usr/bin/env python3
"""Changes and shows budgets of global scope in the store that the proxies share.

    make budgets ARGS="show acme"
    make budgets ARGS="raise acme month 200 --until 2026-12-01"
    make budgets ARGS="set acme month 800"
    make budgets ARGS="unset acme month"
    make budgets ARGS="reset acme month"
    make budgets ARGS="top"

`set` replaces the configured budget, and `raise` adds to the budget, for all proxies together. A limit has at most one set budget and one
raise; a new one replaces the old one. `reset` begins the limit anew: what was spent in its window no longer counts. Proxies learn of a change
with their next line about the limit, within `refresh.most`. Each change is recorded with its time and its author.

BURSAR_REDIS is the store's address (redis://operator@127.0.0.1:6379, rediss:// with TLS), BURSAR_REDIS_PASSWORD its user's password.
"""

import argparse
import collections
import datetime
import getpass
import json
import os
import re
import sys
from decimal import Decimal, InvalidOperation
from urllib.parse import unquote

MOST = 2 ** 53   # the largest number up to which the store counts exactly
EARLY = 10_000   # milliseconds before a window opens from which on it may have an account
MICROS = 1_000_000
KEY = re.compile(r"bursar:\{(?P<names>[^{}]+)\}:(?P<unit>tokens|usd)(?::(?P<generation>\d+):(?P<window>\d+)|(?P<changes>:changes))?")

Limit = collections.namedtuple("Limit", "tenant name unit")
Account = collections.namedtuple("Account", "limit generation window key")
Changes = collections.namedtuple("Changes", "generation set raised until")


class Failure(Exception):
    """An error whose message is printed for the operator."""


# --- names and numbers -------------------------------------------------------

def part(name):
    """A name as a part of a key, escaped as the filter does it."""
    return "".join(chr(byte) if re.fullmatch(rb"[A-Za-z0-9_.@-]", bytes([byte])) else f"%{byte:02X}" for byte in name.encode())


def amount_of(text, unit):
    """An amount in the unit of the store: tokens, or millionths of a dollar."""
    try:
        counted = Decimal(text) * (MICROS if unit == "usd" else 1)
        whole = int(counted)
    except (InvalidOperation, OverflowError, ValueError):
        raise Failure(f"`{text}` is no amount") from None
    if whole != counted:
        raise Failure(f"`{text}` is no whole number of {'millionths of a dollar' if unit == 'usd' else 'tokens'}")
    if not 0 < whole <= MOST:
        raise Failure(f"`{text}` must be above 0, and at most {shown(MOST, unit)}")
    return whole


def shown(counted, unit):
    return f"{Decimal(counted) / MICROS:,.2f} USD" if unit == "usd" else f"{counted:,} tokens"


def time_of(millis):
    time = datetime.datetime.fromtimestamp(millis // 1000, datetime.timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def millis_of(text):
    """The time that `text` names: midnight UTC if it is a day."""
    try:
        time = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise Failure(f"`{text}` is neither a day such as 2026-12-01 nor a time such as 2026-12-01T18:00:00Z") from None
    return int(time.replace(tzinfo=time.tzinfo or datetime.timezone.utc).timestamp() * 1000)


# --- the store ---------------------------------------------------------------

class Store:
    """The accounts of one domain, and what operators have changed."""

    def __init__(self, client, domain):
        self.client, self.domain = client, domain

    def now(self):
        seconds, micros = self.client.time()
        return seconds * 1000 + micros // 1000

    def key(self, limit):
        return f"bursar:{{{part(self.domain)}/{part(limit.tenant)}/{part(limit.name)}}}:{limit.unit}"

    def found(self, tenant=None, name=None):
        """(limits that the store has keys of, accounts of these limits)."""
        names = [part(self.domain), *([part(tenant)] if tenant else []), *([part(name)] if name else [])]
        pattern = f"bursar:{{{'/'.join(names)}{'}:*' if name else '/*'}"
        limits, accounts = set(), []
        for key in self.client.scan_iter(match=pattern, count=1000):
            match = KEY.fullmatch(key)
            named = [unquote(text) for text in match["names"].split("/")] if match else []
            if len(named) != 3:
                continue
            limit = Limit(named[1], named[2], match["unit"])
            limits.add(limit)
            if match["window"]:
                accounts.append(Account(limit, int(match["generation"]), int(match["window"]), key))
        return limits, accounts

    def changes(self, limit, client=None):
        told = (client or self.client).hmget(self.key(limit), "generation", "set", "raise", "until")
        return Changes(*(int(number or 0) for number in told))

    def change(self, limit, by, what, apply):
        """Applies a change and appends it to the limit's list of changes, both or neither. `apply`: takes the present changes and the time,
        and returns the new fields."""
        key = self.key(limit)

        def step(pipe):
            now = self.now()
            fields = apply(self.changes(limit, pipe), now)
            entry = {"at": time_of(now), "by": by, "change": what}
            pipe.multi()
            gone = [name for name, value in fields.items() if value is None]
            kept = {name: value for name, value in fields.items() if value is not None}
            if gone:
                pipe.hdel(key, *gone)
            if kept:
                pipe.hset(key, mapping=kept)
            pipe.rpush(f"{key}:changes", json.dumps(entry))
        self.client.transaction(step, key)

    def book(self, limit):
        return [json.loads(entry) for entry in self.client.lrange(f"{self.key(limit)}:changes", 0, -1)]

    def present(self, accounts):
        """The account from which proxies spend now, for each limit."""
        latest, opens = {}, self.now() + EARLY
        for account in accounts:
            if account.window <= opens:
                known = latest.setdefault(account.limit, account)
                latest[account.limit] = max(known, account, key=lambda one: (one.window, one.generation))
        return latest


def limit_of(store, args):
    """The limit that the arguments name. If they name no unit, the unit is that of the limit's accounts."""
    if args.unit:
        return Limit(args.tenant, args.limit, args.unit)
    limits, _ = store.found(args.tenant, args.limit)
    if len(limits) == 1:
        return limits.pop()
    why = "is counted in both tokens and dollars" if limits else "is not known to the store yet: no proxy has asked for any of it"
    raise Failure(f"`{args.limit}` of {args.tenant} in the domain {store.domain} {why}. Say which: --unit usd or --unit tokens")


# --- commands ----------------------------------------------------------------

def raise_(store, args):
    limit = limit_of(store, args)
    amount = amount_of(args.amount, limit.unit)
    until = millis_of(args.until) if args.until else None

    def apply(_, now):
        if until is not None and until <= now:
            raise Failure(f"{time_of(until)} is over: by the store's clock it is {time_of(now)}")
        return {"raise": amount, "until": until}
    end = f"until {time_of(until)}" if until else "until it is unset"
    store.change(limit, args.by, f"raised by {shown(amount, limit.unit)} {end}", apply)
    print(f"{limit.tenant}, {limit.name}: {shown(amount, limit.unit)} more, {end}")


def set_(store, args):
    limit = limit_of(store, args)
    amount = amount_of(args.amount, limit.unit)
    store.change(limit, args.by, f"set to {shown(amount, limit.unit)}", lambda *_: {"set": amount})
    print(f"{limit.tenant}, {limit.name}: {shown(amount, limit.unit)} in the place of what is configured, until it is unset")


def unset(store, args):
    limit = limit_of(store, args)
    store.change(limit, args.by, "unset", lambda *_: dict.fromkeys(("set", "raise", "until")))
    print(f"{limit.tenant}, {limit.name}: as configured. What proxies were granted beyond that stays theirs in this window")


def reset(store, args):
    limit = limit_of(store, args)
    # The new generation is later than any that a proxy may know, even if the store has lost its data since.
    store.change(limit, args.by, "reset", lambda changes, now: {"generation": max(now, changes.generation + 1)})
    print(f"{limit.tenant}, {limit.name}: all of it is there again")


def numbers(account):
    """(the sum of all grants, the budget of the last line or None), from the account's own field."""
    told = [int(number) for number in account.split()[:8]]
    return told[0], told[7] if len(told) > 7 else None


def used(store, account):
    """(what proxies have used, by each one's last line; the number of these proxies)."""
    entries = [value.split() for field, value in store.client.hgetall(account.key).items() if field.startswith("p:")]
    return sum(int(entry[2]) for entry in entries), len(entries)


def show(store, args):
    limits, accounts = store.found(args.tenant, args.limit)
    present, now = store.present(accounts), store.now()
    if not limits:
        raise Failure(f"the store knows nothing of that in the domain {store.domain}")
    for limit in sorted(limits):
        changes, account = store.changes(limit), present.get(limit)
        since = f", window since {time_of(account.window)}" if account and account.window else ""
        print(f"{limit.tenant}, {limit.name}{since}")
        told = account and account.generation >= changes.generation and store.client.hget(account.key, "a")
        if told:
            granted, budget = numbers(told)
            spent, proxies = used(store, account)
            print(f"    budget, as last told   {'not told' if budget is None else shown(budget, limit.unit)}")
            print(f"    used, as last told     {shown(spent, limit.unit)}, by {proxies} {'process' if proxies == 1 else 'processes'}")
            print(f"    granted to them        {shown(granted, limit.unit)}")
        else:
            print("    nothing of it is used")
        if changes.set:
            print(f"    set to                 {shown(changes.set, limit.unit)}")
        if changes.raised and (not changes.until or changes.until > now):
            print(f"    raised by              {shown(changes.raised, limit.unit)} {'until ' + time_of(changes.until) if changes.until else ''}".rstrip())
        if changes.generation:
            print(f"    reset                  {time_of(changes.generation)}")
        for entry in store.book(limit):
            print(f"    {entry['at']}  {entry['by']}: {entry['change']}")


def top(store, args):
    _, accounts = store.found()
    present = list(store.present(accounts).values())
    pipe = store.client.pipeline(transaction=False)
    for account in present:
        pipe.hget(account.key, "a")
    rows = [(*numbers(told), account) for account, told in zip(present, pipe.execute()) if told]
    rows.sort(key=lambda row: (row[0] / row[1] if row[1] else 0, row[0]), reverse=True)
    print(f"{'tenant':<24} {'limit':<16} {'granted':>20} {'used':>20} {'of budget':>10}")
    for granted, budget, account in rows[:args.rows]:
        limit = account.limit
        share = f"{100 * granted / budget:.1f} %" if budget else "not told"
        print(f"{limit.tenant:<24} {limit.name:<16} {shown(granted, limit.unit):>20} {shown(used(store, account)[0], limit.unit):>20} {share:>10}")


def parsed(words):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="make budgets ARGS=…")
    parser.add_argument("--redis", default=os.environ.get("BURSAR_REDIS", "redis://127.0.0.1:6379"), help="where the store is; no password")
    parser.add_argument("--domain", default="default", help="`domain` of the plugin configuration")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name, run, about):
        added = commands.add_parser(name, help=about)
        added.set_defaults(run=run)
        return added

    def changing(name, run, about):
        added = command(name, run, about)
        added.add_argument("tenant")
        added.add_argument("limit", help="the limit's name; that of a plan's `budget` is budget")
        added.add_argument("--unit", choices=("usd", "tokens"), help="where the store has not heard of the limit yet")
        added.add_argument("--by", default=getpass.getuser(), help="whose change it is")
        return added

    more = changing("raise", raise_, "add to a budget")
    more.add_argument("amount", help="dollars or tokens")
    more.add_argument("--until", help="a day (midnight UTC) or a time; without it, until it is unset")
    sets = changing("set", set_, "another budget than the configured one")
    sets.add_argument("amount", help="dollars or tokens")
    changing("unset", unset, "as configured: what was set, and the raise, are gone")
    changing("reset", reset, "begin anew: nothing is spent")
    shows = command("show", show, "what stands in the store, and who changed what")
    shows.add_argument("tenant", nargs="?")
    shows.add_argument("limit", nargs="?")
    tops = command("top", top, "whose budgets are the emptiest")
    tops.add_argument("rows", nargs="?", type=int, default=20)
    return parser.parse_args(words)


def main(words):
    args = parsed(words)
    try:
        import redis
    except ImportError:
        raise SystemExit("the Python package redis is missing: `make budgets` sets it up") from None
    try:
        client = redis.from_url(args.redis, password=os.environ.get("BURSAR_REDIS_PASSWORD"), decode_responses=True, socket_timeout=10)
        args.run(Store(client, args.domain), args)
    except (Failure, ValueError) as failure:
        raise SystemExit(str(failure)) from None
    except redis.RedisError as error:
        raise SystemExit(f"the store at {args.redis} refuses or does not answer: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
