"""A real Envoy with bursar in it, started from envoy/envoy.yaml with its parts exchanged."""

import copy
import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from . import metrics
from .wait import DEADLINE_SECONDS, until

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "envoy"))
import render  # noqa: E402  (the one that `make run` uses)

WASM = ROOT / "target" / "bursar.wasm"
START_SECONDS = 60
STOP_SECONDS = 20
# What stands in Envoy's log after a trap in the filter.
TRAPPED = re.compile(r"Function: proxy_\w+|wasm log.*panicked|RuntimeError|"
                     r"Plugin configured to fail closed(?! failed to load)", re.I)


def document(plugin_config, upstream_port, hold_headers=True, wasm=WASM, change=None, node_metadata=None):
    """envoy.yaml with the test's parts. `plugin_config` None takes the filter out, a str goes in as it stands.
    `change(doc)` makes any further change."""
    doc = render.load()
    render.set_ports(doc, 0, 0)   # Envoy picks free ones and tells them
    render.set_upstream(doc, "127.0.0.1", upstream_port)
    doc["node"] = {"id": "test", "cluster": "test", "metadata": node_metadata or {}}
    log_format = render.hcm(doc)["access_log"][0]["typed_config"]["log_format"]["json_format"]
    log_format["test_id"] = "%REQ(X-TEST-ID)%"
    if plugin_config is None:
        filters = render.http_filters(doc)
        filters[:] = [each for each in filters if each["name"] != "bursar"]
    else:
        render.set_wasm(doc, wasm)
        render.set_plugin_config(doc, with_mode(plugin_config, hold_headers))
        render.wasm_config(doc)["allow_on_headers_stop_iteration"] = hold_headers
    if change:
        change(doc)
    return doc


def to(cluster="llm", **more):
    """A route's action that passes requests on."""
    return dict({"cluster": cluster, "timeout": "0s"}, **more)


def add_route(doc, prefix, **route):
    """What is done with the paths that begin with `prefix`."""
    routes = render.hcm(doc)["route_config"]["virtual_hosts"][0]["routes"]
    routes.insert(0, dict({"match": {"prefix": prefix}}, **route))


def add_cluster(doc, name, *ports, **more):
    endpoints = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
                 for port in ports]
    render.clusters(doc).append(dict({"name": name, "type": "STATIC", "load_assignment": {
        "cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}}, **more))


def protocol_options(**options):
    """HttpProtocolOptions of a cluster, as its typed_extension_protocol_options want them."""
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {kind: dict({"@type": f"type.googleapis.com/{kind}"}, **options)}


def with_mode(plugin_config, hold_headers):
    """The plugin configuration must say the same as the filter's allow_on_headers_stop_iteration."""
    return plugin_config if isinstance(plugin_config, str) else dict(plugin_config, hold_headers=hold_headers)


def lds_file(doc, version):
    """The listeners of `doc` as the discovery response that a file-based LDS reads."""
    listeners = [dict({"@type": "type.googleapis.com/envoy.config.listener.v3.Listener"}, **listener)
                 for listener in doc["static_resources"]["listeners"]]
    return json.dumps({"version_info": str(version), "resources": listeners})


# All that the access log may be told of a request.
FIELDS = ("tenant", "plan", "tier", "requested_model", "model", "decision", "reason", "limit", "mark", "shadow", "trimmed_messages",
          "input_tokens", "cached_tokens", "output_tokens", "charged", "spend", "settled_by", "remaining", "upstream_refusal",
          "reported_total")


def flat(entry):
    """The decision is a text of its own in the access log; here its fields stand beside the others, None where it has not."""
    told = json.loads(entry["bursar"] or "{}")
    assert told.keys() <= set(FIELDS), told
    return {**entry, **dict.fromkeys(FIELDS), **told}


class Envoy:
    """One Envoy process. With `lds` its listener comes from a file, and `update` exchanges it while it runs; requests of the one before
    have `drain_seconds` to end."""

    def __init__(self, folder, doc, concurrency=2, lds=False, drain_seconds=1,
                 hot_restart=("--disable-hot-restart",), env=None):
        self.folder = Path(folder)
        self.doc = doc
        self.lds_version = 1
        self._bootstrap(copy.deepcopy(doc), lds)
        self._out = open(self.folder / "access.log", "wb")
        self._err = open(self.folder / "envoy.log", "wb")
        self._access = open(self.folder / "access.log", "rb")
        self.all_entries = []   # a test id has several where Envoy makes a new stream of a request
        self._entries, self._unfinished = {}, b""
        self.process = subprocess.Popen(
            [render.envoy_binary(), "-c", str(self.folder / "envoy.yaml"), "--concurrency", str(concurrency),
             *hot_restart, "--file-flush-interval-msec", "5", "--drain-time-s", str(drain_seconds),
             "--drain-strategy", "immediate", "--admin-address-path", str(self.folder / "admin"), "-l", "info"],
            cwd=str(ROOT), stdout=self._out, stderr=self._err, env={**os.environ, **(env or {})})

    def _bootstrap(self, doc, lds):
        if lds:
            self._write_lds(doc)
            del doc["static_resources"]["listeners"]
            doc["dynamic_resources"] = {"lds_config": {
                "resource_api_version": "V3", "path_config_source": {"path": str(self.folder / "lds.json")}}}
        (self.folder / "envoy.yaml").write_text(yaml.safe_dump(doc, sort_keys=False), encoding="utf-8")

    def _write_lds(self, doc):
        # Envoy watches for a file that is moved into place.
        fresh = self.folder / "lds.new"
        fresh.write_text(lds_file(doc, self.lds_version), encoding="utf-8")
        os.replace(str(fresh), str(self.folder / "lds.json"))

    # --- starting and stopping ---

    def wait_ready(self):
        until(self._is_ready, "Envoy to be ready", START_SECONDS)
        return self

    def _is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"Envoy exited with {self.process.returncode}:\n{self.log()[-4000:]}")
        address = self.folder / "admin"
        if not address.exists() or ":" not in address.read_text():
            return False
        self.admin_port = int(address.read_text().rsplit(":", 1)[1])
        try:
            if self.admin("/ready") != "LIVE\n":
                return False
        except OSError:
            return False
        statuses = json.loads(self.admin("/listeners?format=json")).get("listener_statuses", [])
        if not statuses:
            return False
        self.port = statuses[0]["local_address"]["socket_address"]["port_value"]
        return True

    def wait_exit(self):
        """The status with which an Envoy ends that cannot take its configuration."""
        return self.process.wait(START_SECONDS)

    def stop(self):
        """Ends Envoy; fails if it had ended before, or if the filter trapped."""
        died = self.process.poll()
        self.kill()
        assert died is None, f"Envoy died with {died}:\n{self.log()[-4000:]}"
        trapped = TRAPPED.search(self.log())
        assert not trapped, f"the filter trapped:\n{self.log()[max(0, trapped.start() - 2000):][:4000]}"

    def kill(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for file in (self._out, self._err, self._access):
            file.close()

    # --- what Envoy tells ---

    def admin(self, path, method="GET"):
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=START_SECONDS)
        try:
            connection.request(method, path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def stat(self, pattern):
        """The sum of Envoy's own counters and gauges whose names match the regular expression."""
        lines = self.admin(f"/stats?filter={pattern}").splitlines()
        return sum(int(line.rsplit(": ", 1)[1]) for line in lines)

    def resident_bytes(self):
        """The memory that the process has, as the operating system counts it."""
        told = subprocess.run(["ps", "-o", "rss=", "-p", str(self.process.pid)], check=True, capture_output=True, text=True)
        return int(told.stdout) * 1024

    def read_from_upstream(self):
        return self.stat("upstream_cx_rx_bytes_total$")

    def read_from_clients(self):
        return self.stat("^http.llm.downstream_cx_rx_bytes_total$")

    def metrics(self):
        return metrics.parse(self.admin("/stats/prometheus"))

    def metric(self, name, **labels):
        return metrics.total(self.metrics(), name, **labels)

    def log(self):
        return (self.folder / "envoy.log").read_text(encoding="utf-8", errors="replace")

    def access_log(self):
        """The entries so far, by test id."""
        *lines, self._unfinished = (self._unfinished + self._access.read()).split(b"\n")
        for line in lines:
            entry = flat(json.loads(line.decode("utf-8", errors="replace")))
            self.all_entries.append(entry)
            self._entries[entry["test_id"]] = entry
        return self._entries

    def logged(self, test_id):
        """The access log's entry of one request, which Envoy writes after the filter's on_log."""
        return until(lambda: self.access_log().get(test_id), f"the access log's entry of {test_id}")

    # --- exchanging the configuration while it runs ---

    def update(self, plugin_config, accepted=True, drained=True, seconds=DEADLINE_SECONDS):
        """Exchanges the plugin configuration by LDS; returns when Envoy has taken it (or, if so expected, refused it),
        and with `drained` when no worker has the old one any more."""
        counter = "^listener_manager.lds.update_" + ("success$" if accepted else "rejected$")
        before = self.stat(counter)
        hold_headers = render.wasm_config(self.doc)["allow_on_headers_stop_iteration"]
        render.set_plugin_config(self.doc, with_mode(plugin_config, hold_headers))
        self.lds_version += 1
        self._write_lds(self.doc)
        until(lambda: self.stat(counter) > before, counter, seconds)
        if drained:
            self.wait_drained()

    def wait_drained(self):
        """Returns when the old filter chain is gone from every worker."""
        until(lambda: self.stat("^listener_manager.total_(filter_chains|listeners)_(draining|warming)$") == 0,
              "the old configuration to be gone")
