"""What `make run GLOBAL=1` does: two Envoys share one budget through a Redis, and the user may kill any of these processes.

Sends requests through both Envoys in turn until the budget is spent. Then kills the first Envoy as a power cut would, starts it again, and
shows that it finds the budget spent. After that, serves until Ctrl-C. If the user kills an Envoy or the Redis meanwhile, it is started again
after a few seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import render
import tour
import yaml
from processes import Children, Failure, claim_ports, log_tail, shown, wait_until_ready

STORE = render.ROOT / "target" / "tools" / "stores" / "redis-server"
PASSWORD_ENV, PASSWORD = "BURSAR_REDIS_PASSWORD", "change-me"   # the one of envoy/redis.conf
BUDGET = 4_000   # tokens; a request reserves about 490 and uses about 250
TENANT = "globex"
MOST_REQUESTS = 120
AWAY_SECONDS = 5   # how long a Redis stays away that was killed


def say(text):
    print(f"==> {text}", flush=True)


def plugin_config():
    config = render.plugin_config(render.load())
    config["global"] = {"redis": {"cluster": "bursar-redis", "user": "bursar", "password_env": PASSWORD_ENV}, "domain": "local",
                        "refresh": {"least": "200ms", "most": "2s"}}
    return config


def cluster(port):
    """The shipped cluster, with the address of the store on this machine."""
    cluster = yaml.safe_load((render.HERE / "redis-cluster.yaml").read_text(encoding="utf-8"))
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    address["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    return dict(cluster, type="STATIC")


def envoy_yaml(folder, name, ports, port, admin_port):
    doc = render.load()
    render.set_ports(doc, port, admin_port)
    render.set_wasm(doc, render.ROOT / "target" / "bursar.wasm")
    render.set_access_log(doc, folder / f"{name}-access.log")
    render.set_upstream(doc, "127.0.0.1", ports["STANDIN_PORT"])
    render.set_plugin_config(doc, plugin_config())
    render.clusters(doc).append(cluster(ports["REDIS_PORT"]))
    vm = render.wasm_config(doc)["vm_config"]
    vm["environment_variables"] = {"key_values": {PASSWORD_ENV: PASSWORD}}
    path = folder / f"{name}.yaml"
    render.dump(doc, path)
    return path


class Store:
    """A Redis that keeps its data on disk, and is started again when it is killed."""

    def __init__(self, folder, port):
        self.folder, self.port, self.stopping = folder / "redis", port, threading.Event()
        self.folder.mkdir(exist_ok=True)
        for old in self.folder.glob("**/*"):
            if old.is_file():
                old.unlink()
        self.log = open(folder / "redis.log", "wb")
        self.process = None
        self.start()
        threading.Thread(target=self.watch, daemon=True).start()

    def start(self):
        self.process = subprocess.Popen(
            [str(STORE), str(render.HERE / "redis.conf"), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
             "--save", ""],
            stdout=self.log, stderr=self.log, start_new_session=True)

    def watch(self):
        while not self.stopping.is_set():
            self.process.wait()
            if self.stopping.is_set():
                return
            say(f"the Redis has ended: it is started again in {AWAY_SECONDS} s; until then slices are served, and no more")
            self.stopping.wait(AWAY_SECONDS)
            if not self.stopping.is_set():
                self.start()
                say(f"the Redis is back: kill -9 {self.process.pid}")

    def stop(self):
        self.stopping.set()
        self.process.terminate()
        self.process.wait()


def start_envoy(children, name, path, admin_port):
    process = children.start(name, [render.envoy_binary(), "-c", str(path), "--concurrency", "2", "--disable-hot-restart"])
    wait_until_ready(process, admin_port, "/ready")
    return process


def ask(port):
    """Send one request; return its status, the tokens that it used, and bursar's reason."""
    reply = tour.Client(port, None).send(TENANT)
    used = json.loads(reply.body or b"{}").get("usage", {}).get("total_tokens", 0) if reply.status == 200 else 0
    return reply.status, used, reply.header("x-bursar-reason")


def spend(ports):
    """Send requests through both Envoys in turn, until each refuses because the budget is spent; return what was used through each."""
    used, spent = [0, 0], [False, False]
    for number in range(MOST_REQUESTS):
        at = number % 2
        status, tokens, reason = ask(ports[at])
        used[at] += tokens
        spent[at] = reason == "budget_exhausted" and status == 429
        if all(spent):
            break
        if status != 200:
            time.sleep(0.25)
    return used


def run(children: Children, folder, tour_only):
    """Run everything up to the end. Returns the exit status, unless a signal ends the run first."""
    if not STORE.exists():
        raise Failure(f"there is no Redis at {shown(STORE)}: run `make stores`")
    ports = claim_ports({"PORT": 10000, "ADMIN_PORT": 9901, "SECOND_PORT": 10002, "SECOND_ADMIN_PORT": 9903,
                         "STANDIN_PORT": 10001, "REDIS_PORT": 16379})
    store = Store(folder, ports["REDIS_PORT"])
    try:
        return serve(children, folder, ports, store, tour_only)
    finally:
        store.stop()


def serve(children, folder, ports, store, tour_only):
    standin = children.start("standin", [sys.executable, str(render.HERE / "standin.py"), "--port", str(ports["STANDIN_PORT"])])
    wait_until_ready(standin, ports["STANDIN_PORT"], "/v1/models")
    both = (ports["PORT"], ports["SECOND_PORT"])
    say(f"starting two Envoys on 127.0.0.1:{both[0]} and {both[1]} (compiling the filter takes a few seconds)")
    first = envoy_yaml(folder, "first", ports, both[0], ports["ADMIN_PORT"])
    second = envoy_yaml(folder, "second", ports, both[1], ports["SECOND_ADMIN_PORT"])
    killed = start_envoy(children, "first", first, ports["ADMIN_PORT"])
    other = start_envoy(children, "second", second, ports["SECOND_ADMIN_PORT"])
    say(f"{TENANT} has {BUDGET} tokens a day, for both together")
    used = spend(both)
    print(f"    through the first  {used[0]:>6} tokens\n    through the second {used[1]:>6} tokens\n    together           {sum(used):>6}", flush=True)
    say("the first Envoy is killed, as by a power cut, and started again")
    killed.kill()
    killed.wait()
    children.running.remove(killed)
    again = start_envoy(children, "first-again", first, ports["ADMIN_PORT"])
    more = spend(both)
    print(f"    after that         {sum(more):>6} tokens more", flush=True)
    kept = 0 < sum(used) <= BUDGET and sum(used) + sum(more) <= BUDGET
    say("one budget, kept" if kept else "the budget was not kept")
    if tour_only:
        return 0 if kept else 1
    print(f"\nKill what you like and start requests again (acme has plenty):\n    kill -9 {again.pid}, kill -9 {other.pid}    # the Envoys"
          f"\n    kill -9 {store.process.pid}    # the Redis; or kill -STOP, and then kill -CONT\nWhat was killed comes back after {AWAY_SECONDS} s.\n")
    print(f"requests     http://127.0.0.1:{both[0]} and http://127.0.0.1:{both[1]}")
    print(f"budgets      BURSAR_REDIS=redis://operator@127.0.0.1:{ports['REDIS_PORT']} BURSAR_REDIS_PASSWORD={PASSWORD} "
          "make budgets ARGS='--domain local show'")
    print(f"metrics      http://127.0.0.1:{ports['ADMIN_PORT']}/stats/prometheus?filter=bursar_global")
    print(f"logs         {shown(folder)}/*.log", flush=True)
    say("serving until Ctrl-C")
    ways = {again.pid: (first, ports["ADMIN_PORT"]), other.pid: (second, ports["SECOND_ADMIN_PORT"])}
    while True:
        ended = children.wait_for_any()
        if ended.pid not in ways or ended.returncode >= 0:
            break
        say(f"an Envoy was killed: it is started again in {AWAY_SECONDS} s")
        time.sleep(AWAY_SECONDS)
        children.running.remove(ended)
        way = ways.pop(ended.pid)
        back = start_envoy(children, ended.name, *way)
        ways[back.pid] = way
        say(f"that Envoy is back: kill -9 {back.pid}")
    raise Failure(f"{ended.name} ended with status {ended.returncode}; the last lines of {shown(ended.log)}:\n{log_tail(ended)}")
