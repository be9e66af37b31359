"""A real Envoy with bursar before the honest upstream, and a second listener without bursar beside it."""

import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import envoy as harness
from harness import metrics
from harness.envoy import render
from harness.wait import until

from client import Client

HERE = Path(__file__).resolve().parent
WORKERS = 2
MANY = 100_000


class Stage:
    """`with Stage(config) as stage`: `bursar`, `plain` and `direct` (to the upstream itself) are clients.

    `places`: {model: how many of its requests the upstream answers at a time}, where that is limited."""

    def __init__(self, plugin_config, hold_headers=True, places=None):
        self.config, self.hold_headers = plugin_config, hold_headers
        self.places = [f"{model}={count}" for model, count in (places or {}).items()]

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="bursar-replay-")
        self._upstream = subprocess.Popen([sys.executable, str(HERE / "upstream.py"), *self.places],
                                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            port = int(self._upstream.stdout.readline())
            doc = harness.document(self.config, port, self.hold_headers, change=prepare)
            self.envoy = harness.Envoy(self._folder.name, doc, concurrency=WORKERS)
            self.envoy.wait_ready()
        except BaseException:
            self._stop_upstream()
            raise
        ports = listener_ports(self.envoy)
        self.bursar, self.plain, self.direct = Client(ports["llm"]), Client(ports["plain"]), Client(port)
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.envoy.stop()   # fails if Envoy died or the filter trapped
            else:
                self.envoy.kill()
        finally:
            self._stop_upstream()
            self._folder.cleanup()

    def _stop_upstream(self):
        self._upstream.stdin.close()
        self._upstream.wait(10)
        self._upstream.stdout.close()

    async def tally(self):
        return json.loads(await self.direct.get("/tally"))

    def settled_metrics(self, outcomes):
        """bursar's metrics, once all of these requests are counted: counters are told each second, what a request counts first last."""
        admitted = sum(outcome.status == 200 for outcome in outcomes)

        def told():
            now = self.envoy.metrics()
            is_all = (metrics.total(now, "bursar_settlements_total") >= admitted
                      and metrics.total(now, "bursar_requests_total") >= len(outcomes))
            return now if is_all else None
        return until(told, f"{admitted} settlements of {len(outcomes)} requests")

    def close_clients(self):
        for client in (self.bursar, self.plain, self.direct):
            client.close()


def prepare(doc):
    for cluster in render.clusters(doc):
        limits = {"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}
        cluster["circuit_breakers"] = {"thresholds": [limits]}
    doc["static_resources"]["listeners"].append(plain_listener(doc))


def plain_listener(doc):
    """The same listener without bursar."""
    alone = {"static_resources": {"listeners": [copy.deepcopy(render.listener(doc))]}}
    render.listener(alone)["name"] = render.hcm(alone)["stat_prefix"] = "plain"
    filters = render.http_filters(alone)
    filters[:] = [each for each in filters if each["name"] != "bursar"]
    return render.listener(alone)


def listener_ports(envoy):
    statuses = json.loads(envoy.admin("/listeners?format=json"))["listener_statuses"]
    return {status["name"]: status["local_address"]["socket_address"]["port_value"] for status in statuses}
