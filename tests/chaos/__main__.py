"""Faults on real Envoys of two workers and a real Redis, under load: what the upstream was paid, what the store has granted, and how much
of the first is beyond the budget. Then the same faults with a token bucket in the place of the budget.

    python tests/chaos                       all of it, about a quarter of an hour
    python tests/chaos --only=burst --only=store   these rows
    python tests/chaos --seconds 60          each fault so long, with as much before it and after it

The first rows are the test of github.com/BerriAI/litellm discussion #50438: a burst of 20 on room for 2, each proxy killed and started again,
the store away for a minute, a burst after each. The exit status is 1 if more was overspent than a row allows.
"""

import argparse
import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "e2e"))

from harness import clocks, envoy, stores  # noqa: E402
from harness.config import bucket, budget  # noqa: E402
from harness.fleet import BIG, PASSWORD, USER, Fleet, accounts, ask, granted_in, lasting_store  # noqa: E402
from harness.http import Cut  # noqa: E402
from harness.wait import in_parallel  # noqa: E402
from relay import Relay  # noqa: E402

RATE, THREADS = 40, 8   # requests a second in all, and who sends them
TRAPPING = envoy.ROOT / "target" / "bursar-trap.wasm"   # with a trap for who asks
BURST = 20   # requests that the bucket holds, of the rows about one
OF_BUCKETS = "bucket: "   # so begin their names
COLUMNS = ("fault", "Envoys", "asked", "budget", "upstream paid", "store granted", "overspent", "allowed")


class World:
    """A store, a relay to it, and the Envoys that know only the relay."""

    def __init__(self, folder, proxies, plans, tenants, wasm, env=None):
        self.folder = folder
        self.store = lasting_store(folder, env=env)
        self.relay = Relay(self.store.port)
        self.fleet = Fleet(folder, self.store, plans, proxies=proxies, port=self.relay.port, lds=True, tenants=tenants, wasm=wasm,
                           env=env)
        self.asked = Counter()
        self.spans = []   # (tenant, begun, ended) of what was served
        self.lock = threading.Lock()
        self.tenants = {plan: (f"{plan}-{n}" for n in itertools.count()) for plan in plans}

    def ask(self, tenant, at):
        """The answer of one of the Envoys; `None` from one that was killed under it."""
        rigs = list(self.fleet.rigs)
        with self.lock:
            self.asked[tenant] += 1
        begun = time.time()
        try:
            answer = ask(rigs[at % len(rigs)], tenant)
        except (OSError, Cut, AssertionError, IndexError, ZeroDivisionError, ValueError):
            return None
        if answer.status == 200:
            with self.lock:
                self.spans.append((tenant, begun, time.time()))
        return answer

    def burst(self, tenant, requests=20):
        in_parallel(requests, lambda at: self.ask(tenant, at), range(requests))

    @contextlib.contextmanager
    def load(self, tenant):
        """So many requests a second through all Envoys in turn, whatever becomes of them."""
        over = threading.Event()

        def send(thread):
            due = time.monotonic() + thread / RATE
            for number in itertools.count(thread):
                if over.wait(max(0, due - time.monotonic())):
                    return
                self.ask(tenant, number)
                due = max(due + THREADS / RATE, time.monotonic() - 1)
        threads = [threading.Thread(target=send, args=(thread,)) for thread in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def paid(self, tenant):
        """What the upstream answered for, also to Envoys that did not live to hear it."""
        rigs = [*self.fleet.rigs, *self.fleet.gone]
        requests = [request for rig in rigs for request in list(rig.upstream.requests) if request.header("x-tenant-id") == tenant]
        return sum(int(request.header("x-test-usage").split(",")[0]) for request in requests)

    def granted(self, tenant):
        return sum(granted_in(self.store, key) for key in accounts(self.store, tenant))

    def restart(self, rig, env=None):
        self.fleet.kill(rig)
        self.fleet.add(env=env)

    def let_in(self):
        self.store.call(stores.command("ACL", "SETUSER", *USER))

    def stop(self):
        for rig in self.fleet.rigs:
            rig.envoy.process.kill()
            rig.envoy.process.wait()
            rig.upstream.stop()
        self.relay.stop()
        self.store.stop()


def run(*words):
    return lambda world: world.store.call(stores.command(*words))


def during(begin, end):
    """A fault that lasts."""
    def fault(world, tenant, seconds):
        begin(world)
        time.sleep(seconds)
        end(world)
    return fault


def at_once(what, times=1):
    """One that is over at once, so often in its time."""
    def fault(world, tenant, seconds):
        for _ in range(times):
            what(world)
            time.sleep(seconds / times)
    return fault


# --- the faults --------------------------------------------------------------

def start_store(world):
    world.store.start()
    world.let_in()


def set_relay(**fields):
    return lambda world: [setattr(world.relay, name, value) for name, value in fields.items()]


def trap(world, tenant, seconds):
    """Ten times a worker of each Envoy ends under its requests."""
    for _ in range(10):
        for rig in world.fleet.rigs:
            with contextlib.suppress(OSError, Cut):
                rig.chat("gold-0", headers=[("x-trap", "now")])
        time.sleep(seconds / 10)


def fail_over(world, tenant, seconds):
    """To a replica that stopped hearing a second before."""
    folder = world.folder / "replica"
    folder.mkdir()
    replica = stores.Store("redis-server", folder, "--replicaof", "127.0.0.1", str(world.store.port))
    deadline = time.monotonic() + 20
    while b"master_link_status:up" not in replica.call(stores.command("INFO", "replication")):
        assert time.monotonic() < deadline, "the replica does not follow"
        time.sleep(0.05)
    replica.call(stores.command("REPLICAOF", "NO", "ONE"))
    replica.call(stores.command("ACL", "SETUSER", *USER))
    time.sleep(1)
    primary, world.store, world.relay.target = world.store, replica, replica.port
    primary.stop()
    time.sleep(seconds)


def kill_envoys(world, tenant, seconds):
    for rig in list(world.fleet.rigs):
        world.restart(rig)
        time.sleep(seconds / len(world.fleet.rigs))


def shift_clocks(world, tenant, seconds):
    """One Envoy's clock is an hour ahead, and another one's an hour behind."""
    rigs = list(world.fleet.rigs)[:2]
    for rig, ahead in zip(rigs, (3_600, -3_600)):
        world.restart(rig, clocks.ahead(world.folder, ahead))
    time.sleep(seconds)
    for rig in world.fleet.rigs[-len(rigs):]:
        world.restart(rig)


def drain_envoys(world, tenant, seconds):
    for rig in list(world.fleet.rigs):
        world.fleet.rigs.remove(rig)
        world.fleet.gone.append(rig)
        rig.envoy.kill()   # SIGTERM, as a pod's end
        world.fleet.add()


def configure(world, tenant, seconds):
    for number in range(5):
        for rig in world.fleet.rigs:
            rig.envoy.update({**world.fleet.config, "reservation_expiry": f"{30 + number}m"}, drained=False)
        time.sleep(seconds / 5)


def operate(*words):
    def fault(world, tenant, seconds):
        env = {**os.environ, "BURSAR_REDIS": f"redis://127.0.0.1:{world.store.port}"}
        first, *rest = words
        command = [sys.executable, "envoy/budgets.py", "--domain", "llm", first, tenant, "budget", *rest]
        subprocess.run(command, cwd=envoy.ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
        time.sleep(seconds)
    return fault


def both(*faults):
    def fault(world, tenant, seconds):
        for one in faults:
            one(world, tenant, seconds / len(faults))
    return fault


FAULTS = {
    "nothing": lambda world, tenant, seconds: time.sleep(seconds),
    "store frozen": during(lambda world: world.store.freeze(), lambda world: world.store.thaw()),
    "store killed and started again": during(lambda world: world.store.kill(), start_store),
    "store slow by 200 ms": during(set_relay(delay=0.2), set_relay(delay=0)),
    "answers cut half-way": during(set_relay(cut=30), set_relay(cut=None)),
    "script forgotten, ten times": at_once(run("SCRIPT", "FLUSH"), 10),
    "wrong password": during(run("ACL", "SETUSER", "bursar", "resetpass", ">other"),
                             run("ACL", "SETUSER", "bursar", "resetpass", f">{PASSWORD}")),
    "-READONLY": during(run("REPLICAOF", "127.0.0.1", "1"), run("REPLICAOF", "NO", "ONE")),
    "-OOM": during(run("CONFIG", "SET", "maxmemory", "1"), run("CONFIG", "SET", "maxmemory", "0")),
    "each Envoy killed and started again": kill_envoys,
    "each Envoy drained and replaced": drain_envoys,
    "clocks an hour ahead and an hour behind": shift_clocks,
    "configured anew, five times": configure,
    "raised by a half, and lowered again": both(operate("raise", "HALF"), operate("unset")),
    "reset": operate("reset"),
    "store wiped": at_once(run("FLUSHALL")),
    "failed over, the last second lost": fail_over,
}


BUCKET_FAULTS = {name: FAULTS[name] for name in (
    "nothing", "store frozen", "store killed and started again", "store slow by 200 ms", "answers cut half-way", "script forgotten, ten times",
    "each Envoy killed and started again", "each Envoy drained and replaced", "clocks an hour ahead and an hour behind",
    "configured anew, five times")}


# --- rows --------------------------------------------------------------------

def row(world, fault, tenant, limit, allowed=0, beyond=0):
    """`beyond`: what an operator has allowed beside the limit; `allowed`: what may be spent beyond both."""
    paid = world.paid(tenant)
    over = max(0, paid - limit - beyond)
    told = dict(zip(COLUMNS, (fault, len(world.fleet.rigs), world.asked[tenant] * BIG, limit + beyond, paid, world.granted(tenant), over, allowed)))
    print(" | ".join(str(value) for value in told.values()), flush=True)
    return told


def bursts(proxies, options):
    limit = 2 * BIG + BIG // 2
    with started(proxies, {"gold": {"budget": budget(limit, "month")}}, 1) as world:
        tenant = next(world.tenants["gold"])
        world.burst(tenant)
        for rig in list(world.fleet.rigs):
            world.restart(rig)
            world.burst(tenant)
        world.store.kill()
        for _ in range(4):
            world.burst(tenant)
            time.sleep(options.away / 4)
        start_store(world)
        for _ in range(4):
            time.sleep(1)
            world.burst(tenant)
        return row(world, f"burst of 20 on room for 2; restarts; store away for {options.away:g} s", tenant, limit)


def faults(names, options):
    limit = int(RATE * 3 * options.seconds / 2) * BIG
    with started(options.proxies, {"gold": {"budget": budget(limit, "month")}}, len(FAULTS)) as world:
        for name in names:
            tenant = next(world.tenants["gold"])
            fault = FAULTS[name]
            beyond = {"raised by a half, and lowered again": limit // 2, "reset": limit}.get(name, 0)
            if name.startswith("raised"):
                fault = both(operate("raise", str(limit // 2)), operate("unset"))
            with world.load(tenant):
                time.sleep(options.seconds)
                fault(world, tenant, options.seconds)
                time.sleep(options.seconds)
            # Of a store that lost what it knew, the bounds in docs/replicas.md say how much it can be.
            lost = name.startswith(("store wiped", "failed over"))
            yield row(world, name, tenant, limit, "see bounds" if lost else 0, beyond)


def beyond_rate(spans, rate, burst):
    """The most tokens, of all spans of time, that requests which lie whole within it took beyond what the rate gives in it and one burst."""
    spans = sorted(spans)
    worst = 0
    for first, (begun, _) in enumerate(spans):
        ends = sorted(ended for _, ended in spans[first:])
        worst = max(worst, max(at * BIG - rate * (ended - begun) - burst for at, ended in enumerate(ends, 1)))
    return int(worst)


def bucket_faults(names, options):
    """What is asked is twice the rate; every token that is used was reserved."""
    rate, burst = RATE * BIG // 2, BURST * BIG
    with started(options.proxies, {"gold": {"bucket": bucket(rate, "1s", burst=burst)}}, len(BUCKET_FAULTS)) as world:
        for name in names:
            tenant = next(world.tenants["gold"])
            begun = time.time()
            with world.load(tenant):
                time.sleep(options.seconds)
                BUCKET_FAULTS[name](world, tenant, options.seconds)
                time.sleep(options.seconds)
            limit = int(rate * (time.time() - begun)) + burst
            over = beyond_rate([(start, end) for who, start, end in world.spans if who == tenant], rate, burst)
            told = (OF_BUCKETS + name, len(world.fleet.rigs), world.asked[tenant] * BIG, limit, world.paid(tenant), "", over, 0)
            print(" | ".join(map(str, told)), flush=True)
            yield dict(zip(COLUMNS, told))


def traps(options):
    limit = int(RATE * 3 * options.seconds / 2) * BIG
    with started(options.proxies, {"gold": {"budget": budget(limit, "month")}}, 2, TRAPPING) as world:
        _, tenant = next(world.tenants["gold"]), next(world.tenants["gold"])
        with world.load(tenant):
            time.sleep(options.seconds)
            trap(world, tenant, options.seconds)
            time.sleep(options.seconds)
        return row(world, "traps: a worker of each Envoy, ten times", tenant, limit)


def window_end(options):
    """Three windows' ends under load; of each window what was served within it."""
    window = options.window
    limit = RATE * window // 2 * BIG
    with started(options.proxies, {"gold": {"budget": budget(limit, f"{window}s")}}, 1) as world:
        tenant = next(world.tenants["gold"])
        with world.load(tenant):
            time.sleep(4 * window)
        inside = Counter()
        for _, begun, ended in world.spans:
            if begun // window == ended // window:
                inside[begun // window] += BIG
        most = max(inside.values())
        told = (f"windows of {window} s end: the fullest", len(world.fleet.rigs), world.asked[tenant] * BIG, limit, most,
                max(granted_in(world.store, key) for key in accounts(world.store, tenant)), max(0, most - limit), 0)
        print(" | ".join(map(str, told)), flush=True)
        return dict(zip(COLUMNS, told))


ENDS = {   # by the window, and by how many seconds clocks differ
    ("day", 0): "a day ends: both windows",
    ("month", 0): "a month ends: both windows",
    ("month", 4): "a month ends, clocks 4 s apart: both windows",
}


def calendar_end(period, apart, options):
    """A day or a month ends under load, by the clocks of the Envoys and of the store, which are set to shortly before it; so many seconds
    ahead at one Envoy, and behind at another. Both windows together."""
    limit = int(RATE * options.seconds / 2) * BIG
    end = clocks.ENDS[period](time.time())
    with tempfile.TemporaryDirectory(prefix="bursar-clock-") as folder:
        clock = clocks.Clock(Path(folder), int(end - 3_600 - time.time()))
        with started(options.proxies, {"gold": {"budget": budget(limit, period)}}, 1, env=clock.env) as world:
            if apart:
                for rig, seconds in zip(list(world.fleet.rigs), (apart, -apart)):
                    world.restart(rig, clock.shifted(seconds))
            tenant = next(world.tenants["gold"])
            # To the whole second after it.
            before = options.seconds + 2
            clock.set_to(end - before)
            with world.load(tenant):
                time.sleep(before + options.seconds)
            # By the clock that is right; a request that is served as the window ends may be of either window.
            inside = Counter()
            for _, begun, ended in world.spans:
                if ended + clock.ahead < end - apart:
                    inside["before"] += BIG
                elif begun + clock.ahead > end + apart:
                    inside["after"] += BIG
            keys, paid = accounts(world.store, tenant), world.paid(tenant)
            assert len(keys) == 2 and set(inside) == {"before", "after"}, (keys, inside)
            over = max(0, paid - 2 * limit, *(used - limit for used in inside.values()))
            told = (ENDS[period, apart], len(world.fleet.rigs), world.asked[tenant] * BIG, 2 * limit, paid, world.granted(tenant), over, 0)
            print(" | ".join(map(str, told)), flush=True)
            return dict(zip(COLUMNS, told))


@contextlib.contextmanager
def started(proxies, plans, tenants, wasm=envoy.WASM, env=None):
    with tempfile.TemporaryDirectory(prefix="bursar-chaos-") as folder:
        world = World(Path(folder), proxies, plans, tenants, wasm, env)
        try:
            yield world
        finally:
            world.stop()


def table(rows):
    def shown(value):
        return f"{value:,}" if isinstance(value, int) else str(value)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "--:|" * (len(COLUMNS) - 1)]
    lines += ["| " + " | ".join(shown(told[name]) for name in COLUMNS) + " |" for told in rows]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="rows whose names begin so; may be given several times")
    parser.add_argument("--proxies", type=int, default=3, help="Envoys under a fault (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="of a fault, and before and after it (default: %(default)s)")
    parser.add_argument("--away", type=float, default=60, help="seconds that the store is away after the bursts (default: %(default)s)")
    parser.add_argument("--window", type=int, default=15, help="seconds of the windows that end (default: %(default)s)")
    options = parser.parse_args()

    def wanted(name):
        return options.only is None or any(name.startswith(start) for start in options.only)
    rows = [bursts(proxies, options) for proxies in (2, 4, 8) if wanted("burst")]
    names = [name for name in FAULTS if wanted(name)]
    rows += faults(names, options) if names else []
    rows += [traps(options)] if wanted("traps") else []
    rows += [window_end(options)] if wanted("windows") else []
    rows += [calendar_end(*end, options) for end in ENDS if wanted(ENDS[end])]
    names = [name for name in BUCKET_FAULTS if wanted(OF_BUCKETS + name)]
    rows += bucket_faults(names, options) if names else []
    print("\n" + table(rows))
    over = [told["fault"] for told in rows if told["allowed"] == 0 and told["overspent"] > 0]
    if over:
        raise SystemExit(f"overspent: {', '.join(over)}")


if __name__ == "__main__":
    main()
