"""Several Envoys of two workers each with one configuration, over one real store."""

import time

from . import envoy, stores
from .config import BY_HEADER, TIERS
from .rig import STREAMING, Rig
from .wait import in_parallel, let_pass

PASSWORD = "correct-horse"
PASSWORD_ENV = "BURSAR_REDIS_PASSWORD"
USER = stores.shipped_user(PASSWORD)
# What a request may cost: a token a byte and ten of answer; it is scripted to use as much as each test says.
BIG = 1_000


def lasting_store(folder, server="redis-server", env=None):
    """One that keeps what it is told over a restart, with the user that proxies log in as. `env`: of its process, beside this one's."""
    store = stores.Store(server, folder, "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction", env=env)
    store.call(stores.command("ACL", "SETUSER", *USER))
    return store


class Fleet:
    """Several Envoys with one configuration and one store. `port`: where they find it, if not at its own. `env`: of their processes.
    `change(doc)`: of their bootstraps."""

    def __init__(self, folder, store, plans, proxies=2, mode=STREAMING, port=None, lds=False, tenants=8, wasm=envoy.WASM,
                 transport_socket=None, env=None, change=None, **over):
        self.folder, self.store, self.rigs, self.started, self.mode = folder, store, [], 0, mode
        self.port, self.lds, self.wasm, self.env, self.change = port or store.port, lds, wasm, env or {}, change
        self.socket = {"transport_socket": transport_socket} if transport_socket else {}
        self.gone = []   # rigs whose Envoy was killed, for what their upstreams have seen
        tenants = {f"{plan}-{n}": {"plan": plan} for plan in plans for n in range(tenants)}
        self.config = {"tenant": BY_HEADER, "tiers": TIERS, "plans": plans, "tenants": tenants,
                       "global": {"redis": {"cluster": "store", "user": "bursar", "password_env": PASSWORD_ENV}, "domain": "llm",
                                  "refresh": {"least": "200ms", "most": "1s"}}, **over}
        for _ in range(proxies):
            self.add()

    def add(self, password=PASSWORD, env=None):
        """One more. `env`: of its process, beside what all of them have."""
        def change(doc):
            envoy.render.clusters(doc).append(stores.cluster("store", self.port, **self.socket))
            vm = envoy.render.wasm_config(doc)["vm_config"]
            vm["environment_variables"] = {"key_values": {PASSWORD_ENV: password}}
            if self.change:
                self.change(doc)
        folder = self.folder / f"envoy-{self.started}"
        folder.mkdir()
        self.started += 1
        rig = Rig(folder, self.config, mode=self.mode, change=change, lds=self.lds, wasm=self.wasm,
                  env={**self.env, **(env or {})}).wait_ready()
        self.rigs.append(rig)
        return rig

    def kill(self, rig):
        """As a machine that loses its power."""
        self.rigs.remove(rig)
        self.gone.append(rig)
        rig.envoy.process.kill()
        rig.envoy.process.wait()
        rig.upstream.stop()
        return rig

    def stop(self):
        for rig in self.rigs:
            rig.stop()


def ask(rig, tenant, used=BIG):
    """One request that may use `used` tokens and does."""
    return rig.chat(tenant, usage=(used, 0), max_tokens=used)


def spend(rigs, tenant, requests, used=BIG, seconds=20):
    """`requests` on all rigs in turn, each tried again while it is refused for a moment. What was served."""
    def one(at):
        end = time.monotonic() + seconds
        while True:
            response = ask(rigs[at % len(rigs)], tenant, used)
            if response.status == 200 or response.header("x-should-retry") == "false" or time.monotonic() > end:
                return response
            assert response.status == 429, response
            let_pass(int(response.header("retry-after-ms")) / 1000)
    return in_parallel(8, one, range(requests))


def served(responses):
    return sum(response.status == 200 for response in responses)


def accounts(store, tenant):
    """The keys of a tenant's accounts; beside them may be what an operator has changed."""
    keys = store.call(stores.command("KEYS", f"bursar:{{llm/{tenant}/*:[0-9]*")).split(b"\r\n")
    return [key for key in keys if key.startswith(b"bursar:")]


def granted_in(store, key):
    """The sum of all grants of an account, as the store has it."""
    return int(store.call(stores.command("HGET", key, "a")).split(b"\r\n")[1].split()[0])


def granted(store, tenant):
    """The same of a tenant's only account."""
    keys = accounts(store, tenant)
    assert len(keys) == 1, keys
    return granted_in(store, keys[0])
