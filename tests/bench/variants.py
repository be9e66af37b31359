"""What is compared: each an Envoy of its own with the shipped configuration, and other filters in bursar's place."""

import copy
import json
from dataclasses import dataclass
from typing import Callable

from stage import BUILT, ROOT, Side   # which puts tests/e2e on the path
from harness.envoy import protocol_options, render
from harness.wait import until
from workloads import ASKED, KIB, MIB, SERVED, TENANT, USED

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


def counted(envoy, _=None):
    """Tokens in bursar's metrics, once all answers are in them: they are told each second."""
    served = envoy.stat("^http.llm.downstream_rq_2xx$")
    until(lambda: envoy.metric("bursar_settlements_total") >= served, f"{served} settlements")
    return envoy.metric("bursar_tokens_total")


def bursar(held, module=ROOT / "target/bursar.wasm"):
    def filters(buffer):
        hold = 3 * MIB if buffer > MIB else buffer // 2
        return [wasm("bursar", module, held, bursar_config(held, hold))]
    return filters


def before(module):
    """The same by the module of an earlier commit, as its compiler wrote it."""
    module = module.resolve()
    def variant(name, held, says):
        return Variant(name, says, f"the module of {module.parent.name}", bursar(held, module), rewrites=True,
                       used=counted)
    return (variant("before", True, "bursar before, headers held"), variant("before-passing", False, "bursar before, passing"))


# Today's variant, and the one that is its like before.
BEFORE = (("held", "before"), ("passing", "before-passing"))


# --- Envoy's own -------------------------------------------------------------

FIND = f"""
local asked, served = '"model":"{ASKED}"', '"model":"{SERVED}"'
function envoy_on_request(handle)
  local body = handle:body()
  local text = body:getBytes(0, body:length())
  local first, last = text:find(asked, 1, true)
  if first then body:setBytes(text:sub(1, first - 1) .. served .. text:sub(last + 1)) end
end
"""
GSUB = f"""
function envoy_on_request(handle)
  local body = handle:body()
  local text = body:getBytes(0, body:length())
  body:setBytes((text:gsub('("model"%s*:%s*)"{ASKED.replace("-", "%-")}"', '%1"{SERVED}"', 1)))
end
"""
# Of both. A stream passes as it comes.
RESPONSE = """
function read(handle, text)
  local _, last = text:find('"usage":{', 1, true)
  local tokens = last and text:match('"total_tokens":(%d+)', last)
  if tokens then handle:streamInfo():dynamicMetadata():set("bench", "tokens", tokens) end
  return tokens
end
function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("content-type"):find("text/event-stream", 1, true) then
    for chunk in handle:bodyChunks() do read(handle, chunk:getBytes(0, chunk:length())) end
  else
    local body = handle:body()
    headers:add("x-tokens", read(handle, body:getBytes(0, body:length())) or "")
  end
end
"""


def lua(request):
    return {"name": "envoy.filters.http.lua", "typed_config": {
        "@type": f"{EXTENSIONS}.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": request + RESPONSE}}}


def local_ratelimit():
    bucket = {"max_tokens": 10**9, "tokens_per_fill": 10**9, "fill_interval": "1s"}
    always = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {"name": "envoy.filters.http.local_ratelimit", "typed_config": {
        "@type": f"{EXTENSIONS}.filters.http.local_ratelimit.v3.LocalRateLimit", "stat_prefix": "bench",
        "token_bucket": bucket, "filter_enabled": always, "filter_enforced": always,
        "descriptors": [{"entries": [{"key": "tenant", "value": TENANT}], "token_bucket": bucket}],
        "rate_limits": [{"actions": [BY_TENANT]}]}}


BY_TENANT = {"request_headers": {"header_name": "x-tenant-id", "descriptor_key": "tenant"}}


def ai_protocol_manager():
    return {"name": "envoy.filters.http.ai_protocol_manager", "typed_config": {
        "@type": f"{EXTENSIONS}.filters.http.ai_protocol_manager.v3.AiProtocolManager",
        "request_handling": {"parse_unconfigured_routes": True},
        "response_handling": {"token_usage": {
            "include_unconfigured_routes": True, "default_llm_protocol": "OPENAI_CHAT_COMPLETIONS"}}}}


def ai_gateway():
    """The processor tells the tokens as dynamic metadata; the limiter is asked before a request, and told them when it is done."""
    service = {"envoy_grpc": {"cluster_name": "side"}, "timeout": "10s"}
    return [
        {"name": "envoy.filters.http.ext_proc", "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.ext_proc.v3.ExternalProcessor", "grpc_service": service,
            "message_timeout": "10s", "allow_mode_override": True,
            "processing_mode": {"request_header_mode": "SEND", "request_body_mode": "BUFFERED",
                                "response_header_mode": "SEND", "response_body_mode": "BUFFERED"},
            "metadata_options": {"receiving_namespaces": {"untyped": ["bench"]}}}},
        {"name": "envoy.filters.http.ratelimit", "typed_config": {
            "@type": f"{EXTENSIONS}.filters.http.ratelimit.v3.RateLimit", "domain": "bench", "timeout": "10s", "failure_mode_deny": True,
            "rate_limit_service": {"grpc_service": service, "transport_api_version": "V3"},
            "rate_limits": [{"actions": [BY_TENANT], "hits_addend": {"number": 0}},
                            {"actions": [BY_TENANT], "apply_on_stream_done": True,
                             "hits_addend": {"format": "%DYNAMIC_METADATA(bench:tokens)%"}}]}}]


def add_side(doc, port):
    render.clusters(doc).append({
        "name": "side", "type": "STATIC",
        "typed_extension_protocol_options": protocol_options(explicit_http_config={"http2_protocol_options": {}}),
        "load_assignment": {"cluster_name": "side", "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]}})


# --- the variants ------------------------------------------------------------

ALONE = Variant("none", "Envoy alone", "no filter but the router", lambda _: [])
AGAIN = Variant("again", "Envoy alone, a second one", "the same once more: what is noise", lambda _: [])
NOOP = Variant("noop", "no-op filter", "WebAssembly by the Rust SDK that does nothing",
               lambda _: [wasm("noop", WASM32 / "noop.wasm")])
CALLS = Variant("calls", "bursar's calls alone", "the calls of the proxy that bursar makes, with constants for all that it decides: the floor of what it tells",
                lambda _: [wasm("calls", WASM32 / "calls.wasm", held=True)], rewrites=True)
HELD = Variant("held", "**bursar**, headers held", "all of it: tenant, budget in dollars, bucket, downgrade, usage, metrics, headers",
               bursar(held=True), rewrites=True, used=counted)
PASSING = Variant("passing", "**bursar**, passing", "the same without `hold_headers`",
                  bursar(held=False), rewrites=True, used=counted)
DOM = Variant("dom", "the DOM way", "bursar's path with a tree of serde_json values for each body and event; no rules",
              lambda _: [wasm("dom", WASM32 / "dom.wasm", held=True)], rewrites=True,
              used=lambda envoy, _: envoy.stat("wasmcustom.dom_tokens_total"))

LUA_FIND = Variant("lua-find", "Lua, one plain find", "exchanges the model where the text stands that it looks for; reads usage, has nowhere to keep it",
                   lambda _: [lua(FIND)], rewrites=True)
LUA_GSUB = Variant("lua-gsub", "Lua, a pattern", "the same by `gsub`, which allows white space", lambda _: [lua(GSUB)], rewrites=True)
LOCAL = Variant("local", "`local_ratelimit`", "Envoy's own token bucket for each tenant: counts requests, reads no body", lambda _: [local_ratelimit()])
MANAGER = Variant("manager", "`ai_protocol_manager`", "Envoy's own parser of LLM requests and usage; no budgets, the model stays", lambda _: [ai_protocol_manager()],
                  used=lambda envoy, _: USED * envoy.stat("ai_protocol_manager.*token_usage_found"))
GATEWAY = Variant("gateway", "the shape of an AI gateway", "ext_proc with both bodies and two calls of a rate-limit service, in one Rust process beside Envoy",
                  lambda _: ai_gateway(), rewrites=True, used=lambda _, side: side.ask()["tokens"], side=lambda core: Side("gateway", core),
                  change=add_side)

VARIANTS = (ALONE, AGAIN, NOOP, CALLS, HELD, PASSING, DOM, LUA_FIND, LUA_GSUB, LOCAL, MANAGER, GATEWAY)
BY_NAME = {variant.name: variant for variant in VARIANTS}
