"""What is compared: each an Envoy of its own with the shipped configuration, and other filters in bursar's place."""

import copy
import json
from dataclasses import dataclass
from typing import Callable

import workloads
from stage import BUILT, ROOT, render
from workloads import ASKED, KIB, MIB, SERVED, TENANT

BUFFERS = {"llm": 4 * MIB, "small": 32 * KIB}   # by listener
WASM32 = BUILT / "wasm32-wasip1/release"
EXTENSIONS = "type.googleapis.com/envoy.extensions"
MANY = 100_000


@dataclass(frozen=True)
class Variant:
    name: str
    says: str   # in tables
    does: str   # in a sentence
    filters: Callable    # (bytes of a connection's buffer) -> HTTP filters in front of the router
    rewrites: bool = False   # exchanges the model
    used: Callable = None    # envoy, side -> tokens that it has counted
    side: Callable = None    # core -> a process beside Envoy
    change: Callable = None  # of the document, with the side's port

    def document(self, upstream, side_port=None):
        doc = render.load()
        render.set_ports(doc, 0, 0)
        render.set_upstream(doc, "127.0.0.1", upstream)
        doc["node"] = {"id": "bench", "cluster": "bench"}
        render.hcm(doc).pop("access_log")
        set_apart(doc)
        for listener in doc["static_resources"]["listeners"]:
            filters = render.http_filters({"static_resources": {"listeners": [listener]}})
            filters[:-1] = self.filters(listener["per_connection_buffer_limit_bytes"])
        if self.change:
            self.change(doc, side_port)
        return doc


def set_apart(doc):
    """Two listeners, each with clusters of its own: one with large buffers and one with small ones."""
    large = render.listener(doc)
    clusters = render.clusters(doc)
    small = copy.deepcopy(large)
    small["name"] = "small"
    small_hcm = render.hcm({"static_resources": {"listeners": [small]}})
    for host in small_hcm["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            route["route"]["cluster"] += "_small"
    doc["static_resources"]["listeners"].append(small)
    for cluster in list(clusters):
        cluster["per_connection_buffer_limit_bytes"] = BUFFERS["llm"]
        cluster["type"] = "STATIC"
        cluster["circuit_breakers"] = {"thresholds": [
            {"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY}]}
        other = copy.deepcopy(cluster)
        other["name"] = other["load_assignment"]["cluster_name"] = cluster["name"] + "_small"
        other["per_connection_buffer_limit_bytes"] = BUFFERS["small"]
        clusters.append(other)
    for listener in doc["static_resources"]["listeners"]:
        listener["per_connection_buffer_limit_bytes"] = BUFFERS[listener["name"]]


# --- filters in WebAssembly --------------------------------------------------


def wasm(name, path, held=False, configuration=""):
    """As envoy.yaml has bursar."""
    config = copy.deepcopy(render.wasm_config(render.load()))
    config.update(name=name, root_id=name, allow_on_headers_stop_iteration=held)
    config["vm_config"].update(vm_id=name, code={"local": {"filename": str(path)}})
    config["configuration"]["value"] = configuration
    return {"name": name, "typed_config": {"@type": f"{EXTENSIONS}.filters.http.wasm.v3.Wasm", "config": config}}


def bursar_config(hold_headers, hold_bytes=3 * MIB, tenants=1):
    """Every request is downgraded: what is left is below all of the budget once a request was settled."""
    price = {"input": 2.50, "cached_input": 1.25, "output": 10.0}
    lower = {"input": 0.15, "cached_input": 0.075, "output": 0.60}
    return json.dumps({
        "hold_headers": hold_headers, "hold_bytes": hold_bytes,
        "tenant": {"from": [{"header": "x-tenant-id"}], "missing": "reject", "unknown": "reject"},
        "tiers": [{"name": "default", "model": ASKED, "price": price},
                  {"name": "compact", "model": SERVED, "price": lower, "below": 1}],
        "plans": {"gold": {
            "budget": {"initial_budget": 1_000_000, "unit": "usd", "window": "month"},
            "bucket": {"tokens_per_window": 10**12, "window": "1m"}}},
        "tenants": {f"tenant-{number:07}": {"plan": "gold"} for number in range(tenants)}})


def bursar(held):
    def filters(buffer):
        hold = 3 * MIB if buffer > MIB else buffer // 2
        return [wasm("bursar", ROOT / "target/bursar.wasm", held, bursar_config(held, hold))]
    return filters


# --- the variants ------------------------------------------------------------

ALONE = Variant("none", "Envoy alone", "no filter but the router", lambda _: [])
AGAIN = Variant("again", "Envoy alone, a second one", "the same once more: what is noise", lambda _: [])
NOOP = Variant("noop", "no-op filter", "WebAssembly by the Rust SDK that does nothing",
               lambda _: [wasm("noop", WASM32 / "noop.wasm")])
HELD = Variant("held", "**bursar**, headers held", "all of it: tenant, budget in dollars, bucket, downgrade, usage, metrics, headers",
               bursar(held=True), rewrites=True, used=lambda envoy, _: envoy.metric("bursar_tokens_total"))
PASSING = Variant("passing", "**bursar**, passing", "the same without `hold_headers`",
                  bursar(held=False), rewrites=True, used=lambda envoy, _: envoy.metric("bursar_tokens_total"))
DOM = Variant("dom", "the DOM way", "bursar's path with a tree of serde_json values for each body and event; no rules",
              lambda _: [wasm("dom", WASM32 / "dom.wasm", held=True)], rewrites=True,
              used=lambda envoy, _: envoy.stat("wasmcustom.dom_tokens_total"))

VARIANTS = (ALONE, AGAIN, NOOP, HELD, PASSING, DOM)
BY_NAME = {variant.name: variant for variant in VARIANTS}

__all__ = ["BY_NAME", "TENANT", "VARIANTS", "Variant", "bursar_config", "wasm", "workloads"]
