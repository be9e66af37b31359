"""A set-up that is broken in one way: what is seen then, and that docs/istio.md leads from there to the cure."""

import http.client
import json
import re
import socket
import sys

import lab
import pytest
from lab import ask

PAGE = (lab.ROOT / "docs/istio.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def mesh():
    """Without the LLM: each test sets that up."""
    with lab.Mesh() as mesh:
        mesh.start()
        yield mesh


def leads(seen, to):
    """That one row of the page's tables is of what is `seen`, and names the cause or the cure."""
    (section,) = re.findall(r"^## Troubleshooting\n(.*?)(?=^## )", PAGE, re.M | re.S)
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    assert any(row.split(" | ")[0].startswith(f"| {seen}") and to in row for row in rows), f"no row {seen!r} with {to!r}"


def set_up(change=lambda documents: None):
    """What the ten commands apply, but for what closes the way round, with `change` made to it: documents by their kind."""
    documents = {document["kind"]: document for document in [*lab.load(lab.EGRESS), lab.shipped_filter()]}
    change(documents)
    return list(documents.values())


def patched(change):
    """A change of the EnvoyFilter's only patch."""
    return lambda documents: change(documents["EnvoyFilter"]["spec"]["configPatches"][0])


def plugged(change):
    """A change of its PluginConfig."""
    return lambda documents: change(lab.plugin(documents["EnvoyFilter"]))


def configured(change):
    """A change of bursar's configuration."""
    def both(plugin):
        plugin["configuration"]["value"] = json.dumps(lab.changed(json.loads(plugin["configuration"]["value"]), change))
    return plugged(both)


def host_of_the_matcher(patch):
    matchers = patch["patch"]["value"]["typed_config"]["xds_matcher"]["matcher_list"]["matchers"]
    return matchers[0]["predicate"]["not_matcher"]["single_predicate"]["value_match"]["safe_regex"]


def is_unmetered():
    answer = ask(None)
    return (answer.status, answer.decision) == (200, None)


# --- the pod does not get ready --------------------------------------------------


@pytest.mark.parametrize("change, reason", [
    (plugged(lambda plugin: plugin["vm_config"]["code"]["local"].update(filename="/var/local/bursar/other.wasm")), "other.wasm"),
    (configured(lambda configuration: configuration["plans"]["small"]["budget"].update(windw="day")), "plans.small.budget"),
    (patched(lambda patch: host_of_the_matcher(patch).pop("google_re2")), "engine_type"),
], ids=["no such file", "misspelt key", "a matcher without google_re2"])
def test_a_listener_that_envoy_refuses(mesh, pod, change, reason):
    refusals = len(mesh.refusals())
    pod(*set_up(change), is_awaited=False)
    lab.until(lambda: reason in mesh.log("agent"), "the reason in the proxy's log")
    lab.until(lambda: len(mesh.refusals()) > refusals, "istiod to log the refusal")
    assert not mesh.is_proxy_ready()
    leads("the pod is not ready", to="the proxy's log")


@pytest.fixture
def plain_llm(mesh):
    """Something at the LLM's port 80, without TLS, as providers have it; what it got is in its log."""
    mesh.processes.start("plain", [sys.executable, "-m", "http.server", "80", "--bind", "127.0.0.2"])
    lab.until(lambda: "Serving" in mesh.log("plain"), "it")
    yield
    mesh.processes.stop("plain")


def status_or_none():
    """What a request is answered, if it is."""
    try:
        return ask("acme").status
    except OSError:
        return None


# The file that Python's server has not under POST: 501.
@pytest.mark.parametrize("more, status", [([], 501), (lab.load(lab.ROOT / "istio/registry-only.yaml"), None)], ids=["open", "closed"])
def test_where_requests_go_without_a_listener(mesh, pod, plain_llm, more, status):
    wrong = plugged(lambda plugin: plugin["vm_config"]["code"]["local"].update(filename="/var/local/bursar/other.wasm"))
    pod(*set_up(wrong), *more, is_awaited=False)
    lab.until(lambda: "other.wasm" in mesh.log("agent"), "the reason in the proxy's log")
    lab.until(lambda: "virtualOutbound" in lab.admin("/listeners"), "the other listeners")
    assert status_or_none() == status
    assert ("POST" in mesh.log("plain")) == (status is not None)
    leads("the pod is not ready", to="`registry-only.yaml`")


# --- 403 ---------------------------------------------------------------------------


def extension(**more):
    (document,) = lab.load(lab.ROOT / "istio/traffic-extension.yaml")
    document["spec"]["wasm"].update(more)
    return document


@pytest.mark.parametrize("wasm, reason", [
    ({"url": "http://127.0.0.1:26600/other.wasm"}, "404"),
    ({"url": lab.WEB, "sha256": "0" * 64}, "checksum"),
    ({"url": "http://127.0.0.1:26600/"}, "wasm"),
], ids=["no such file", "another checksum", "a page in place of a module"])
def test_a_module_that_the_agent_does_not_get(pod, web, wasm, reason):
    mesh = pod(*lab.load(lab.EGRESS), extension(**wasm))
    answer = ask("acme")
    assert (answer.status, answer.text) == (403, "RBAC: access denied"), answer
    assert any("wasm" in line.lower() and reason in line for line in mesh.log("agent").splitlines()), mesh.log("agent")
    leads('403 "RBAC: access denied"', to="the agent's log")


def test_no_tenants(pod):
    mesh = pod(*set_up(configured(lambda configuration: configuration.update(tenants={}))))
    assert ask("acme").code == "tenant_unknown"
    assert "tenants" in mesh.log("agent")
    leads("403 on every request", to="`tenants` is empty")


# --- hangs, 502, 503 ------------------------------------------------------------------


def answer_until_the_client_goes():
    """What a request is answered whose client has sent all and then goes away."""
    connection = http.client.HTTPConnection("api.openai.com", timeout=30)
    headers = {"x-tenant-id": "acme", "content-type": "application/json"}
    # One that is answered, so that the proxy is past all that comes before HTTP.
    connection.request("GET", "/v1/models", headers=headers)
    connection.getresponse().read()
    connection.request("POST", "/v1/chat/completions", json.dumps({"model": "gpt-4o", "messages": []}), headers)
    connection.sock.shutdown(socket.SHUT_WR)
    try:
        return b"".join(iter(lambda: connection.sock.recv(65_536), b""))
    except ConnectionResetError:
        return b""
    finally:
        connection.close()


@pytest.mark.parametrize("documents", [
    lambda: set_up(plugged(lambda plugin: plugin.pop("allow_on_headers_stop_iteration"))),
    lambda: [*lab.load(lab.EGRESS), extension(pluginConfig=lab.plugin_configuration())],
], ids=["an EnvoyFilter without the flag", "an extension that holds"])
def test_headers_that_are_held_in_vain(pod, documents):
    mesh = pod(*documents())
    assert answer_until_the_client_goes() == b""
    lab.until(lambda: "`hold_headers: true` needs" in mesh.log("agent"), "the cure in the log")
    leads("the request hangs", to="`hold_headers: true` without `allow_on_headers_stop_iteration`")


def test_no_tls_to_the_provider(pod):
    pod(*set_up(lambda documents: documents.pop("DestinationRule")))
    answer = ask("acme")
    assert (answer.status, answer.decision) == (503, "admit"), answer
    leads("503 with `UF`, `UC`", to="DestinationRule")


def test_a_host_that_the_mesh_does_not_know(pod):
    pod(*set_up(), *lab.load(lab.ROOT / "istio/registry-only.yaml"))
    lab.until(lambda: lab.over_https() is None, "the way round to be closed")
    assert ask(None, host="unknown.example", address=("api.openai.com", 80)).status == 502
    leads("502", to="ServiceEntry")


# --- served, but unmetered --------------------------------------------------------------


def bursars_listeners():
    return [listener for listener, names in lab.http_filters() if "bursar" in names]


def test_a_pod_without_the_label(pod):
    pod(*set_up(), pod=lab.Pod(labels=(("app", "app"),)))
    assert is_unmetered() and bursars_listeners() == []
    leads("the pod lacks the label", to="has no `bursar`")


def test_another_port_in_the_filter(pod):
    pod(*set_up(patched(lambda patch: patch["match"]["listener"].update(portNumber=443))))
    assert is_unmetered() and bursars_listeners() == []
    leads("the filter's `portNumber`", to="no listener has `bursar`")


def test_a_matcher_of_another_host(pod):
    pod(*set_up(patched(lambda patch: host_of_the_matcher(patch).update(regex="openai"))))
    assert is_unmetered() and bursars_listeners() == ["0.0.0.0_80"]
    leads("another port than 80, another host than the matcher's", to="whole")


def test_a_port_that_the_mesh_takes_for_tcp(pod):
    def change(documents):
        documents["ServiceEntry"]["spec"]["ports"][0].update(name="tcp-llm", protocol="TCP")
    pod(*set_up(change))
    assert is_unmetered()
    leads("the ServiceEntry's `protocol`", to="`protocol: HTTP`")


def test_a_filter_by_discovery_without_its_second_patch(pod):
    (document,) = lab.load(lab.ROOT / "istio/envoyfilter-ecds.yaml")
    document["spec"]["configPatches"].pop()
    pod(*lab.load(lab.EGRESS), document)
    assert is_unmetered()
    assert "bursar_build_info" not in lab.admin("/stats/prometheus")
    leads("`envoyfilter-ecds.yaml` without its second patch", to="bursar_build_info")


def https_of_another_namespace(host, resolution):
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "llm", "namespace": "team-b"},
            "spec": {"hosts": [host], "location": "MESH_EXTERNAL", "resolution": resolution,
                     "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]}}


def test_another_namespace_does_not_open_the_way_round_to_the_same_host(pod):
    pod(*set_up(), *lab.load(lab.ROOT / "istio/registry-only.yaml"), https_of_another_namespace("api.openai.com", "DNS"))
    assert ask("acme").decision == "admit"
    assert lab.over_https() is None


def test_another_namespace_opens_the_way_round_by_a_wildcard(pod):
    (closing,) = lab.load(lab.ROOT / "istio/registry-only.yaml")
    pod(*set_up(), closing, https_of_another_namespace("*.openai.com", "NONE"))
    lab.until(lambda: lab.over_https() == 200, "the way round")
    closing["spec"]["egress"] = [{"hosts": ["./*", "istio-system/*"]}]
    lab.apply(closing)
    lab.until(lambda: lab.over_https() is None, "the way round to be closed")
    assert ask("acme").decision == "admit"
    leads("another namespace's ServiceEntry", to="`egress`")
