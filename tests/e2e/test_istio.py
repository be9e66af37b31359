"""The HTTP filters of istio/, exactly as they are shipped, in the Envoy that the other tests use."""

import copy
import json
import os

import pytest
import yaml

from harness import certificates, envoy, http
from harness.rig import CHAT, STREAMING, chat_body
from harness.wait import until

SHIPPED = envoy.ROOT / "istio"
LLM_HOSTS = ("api.openai.com", "api.openai.com:80")
OTHER_HOSTS = ("other.example", "api.openai.com.evil.example", "xapi.openai.com", "api-openai.com", "api.openai.com:8080")


def documents(name):
    return list(yaml.safe_load_all((SHIPPED / name).read_text(encoding="utf-8")))


def patches(name="envoyfilter.yaml"):
    (found,) = [document for document in documents(name) if document["kind"] == "EnvoyFilter"]
    return found["spec"]["configPatches"]


def shipped_filter(name="envoyfilter.yaml"):
    (value,) = [patch["patch"]["value"] for patch in patches(name) if patch["applyTo"] == "HTTP_FILTER"]
    return value


def plugin(http_filter):
    """The PluginConfig within the matcher that skips other hosts."""
    return http_filter["typed_config"]["extension_config"]["typed_config"]["config"]


def messages_within(value):
    """Every mapping that stands where protobuf's JSON wants an Any."""
    if isinstance(value, dict):
        is_route_filter = str(value.get("@type", "")).endswith("envoy.config.route.v3.FilterConfig")
        for key, inner in value.items():
            if key in ("typed_config", "default_config", "configuration") or (key == "config" and is_route_filter):
                yield inner
            elif key == "typed_per_filter_config":
                yield from inner.values()
            yield from messages_within(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from messages_within(inner)


def start(start_rig, name, change=lambda doc: None):
    def put_shipped_filter(doc):
        filters = envoy.render.http_filters(doc)
        (place,) = [n for n, each in enumerate(filters) if each["name"] == "bursar"]
        http_filter = shipped_filter(name)
        plugin(http_filter)["vm_config"]["code"]["local"]["filename"] = str(envoy.WASM)
        filters[place] = http_filter
        change(doc)

    config = json.loads(plugin(shipped_filter(name))["configuration"]["value"])
    return start_rig(config, change=put_shipped_filter)


@pytest.fixture(scope="module")
def sidecar(start_rig):
    return start(start_rig, "envoyfilter.yaml")


def ask(rig, host, tenant, tls=None):
    body = chat_body()
    headers = [("host", host), ("content-type", "application/json"), ("content-length", len(body))]
    if tenant is not None:
        headers.append(("x-tenant-id", tenant))
    with http.Connection(rig.envoy.port, tls=tls) as connection:
        connection.send(http.head("POST", CHAT, headers), body)
        return connection.read()


@pytest.mark.parametrize("name", ["envoyfilter.yaml", "envoyfilter-ecds.yaml", "egress-gateway.yaml"])
def test_every_any_of_the_file_names_its_type(name):
    # istiod decodes each patch as protobuf JSON: an Any without a type makes it drop the patch, and its webhook refuse the file.
    found = list(messages_within(patches(name)))
    assert len(found) >= 4
    assert all(isinstance(each, dict) and each.get("@type") for each in found), found


@pytest.mark.parametrize("host", LLM_HOSTS)
def test_requests_to_the_llm_are_metered(sidecar, host):
    assert ask(sidecar, host, None).code == "tenant_required"
    assert ask(sidecar, host, "nobody").code == "tenant_unknown"
    served = ask(sidecar, host, "acme")
    assert (served.status, served.header("x-bursar-decision")) == (200, "admit")


@pytest.mark.parametrize("host", OTHER_HOSTS)
def test_requests_to_every_other_host_are_left_alone(sidecar, host):
    served = ask(sidecar, host, None)
    assert (served.status, served.header("x-bursar-decision")) == (200, None)


# In the gateway the workload's certificate is the tenant, whatever a header says.
def test_the_gateways_filter_knows_its_tenants_by_their_certificates(start_rig, tmp_path):
    if certificates.OPENSSL is None:
        pytest.skip("the openssl command makes the certificates, and is not on PATH")
    authority = certificates.Authority(tmp_path)

    def use_tls(doc):
        envoy.render.listener(doc)["filter_chains"][0]["transport_socket"] = authority.server()

    gateway = start(start_rig, "egress-gateway.yaml", use_tls)
    config = json.loads(plugin(shipped_filter("egress-gateway.yaml"))["configuration"]["value"])
    for tenant in [*config["tenants"], "spiffe://cluster.local/ns/other/sa/app"]:
        tls = authority.client(*authority.issue("pod", f"URI:{tenant}"))
        served = ask(gateway, "api.openai.com", "spiffe://cluster.local/ns/team-a/sa/app", tls)
        if tenant in config["tenants"]:
            assert (served.status, served.header("x-bursar-decision")) == (200, "admit")
            until(lambda: gateway.metric("bursar_requests_total", tenant=tenant) == 1, "the count")
        else:
            assert served.code == "tenant_unknown"
        assert ask(gateway, "other.example", None, tls).header("x-bursar-decision") is None


# --- the configuration apart from the listener ---


class Discovered:
    """The filter of envoyfilter-ecds.yaml, whose configuration comes from a file where istiod would send it."""

    NAME = "envoyfilter-ecds.yaml"

    def __init__(self, folder):
        self.file = folder / "ecds.json"
        self.version = 0
        (self.resource,) = [patch["patch"]["value"] for patch in patches(self.NAME) if patch["applyTo"] == "EXTENSION_CONFIG"]
        plugin(self.resource)["vm_config"]["code"]["local"]["filename"] = str(envoy.WASM)
        self.configuration = json.loads(plugin(self.resource)["configuration"]["value"])

    def send(self, configuration):
        self.version += 1
        resource = copy.deepcopy(self.resource)
        plugin(resource)["configuration"]["value"] = json.dumps(configuration)
        kind = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"version_info": str(self.version), "resources": [{"@type": kind, **resource}]}))
        os.replace(fresh, self.file)   # Envoy watches for a file that is moved into place

    def start(self, start_rig, rules=None):
        def change(doc):
            http_filter = shipped_filter(self.NAME)
            discovery = http_filter["config_discovery"]
            # What the file says but for where it comes from and how long that is waited for.
            discovery["config_source"] = {"resource_api_version": "V3", "path_config_source": {"path": str(self.file)},
                                          "initial_fetch_timeout": "0.1s"}
            if rules is not None:
                discovery["default_config"]["rules"] = rules
            filters = envoy.render.http_filters(doc)
            (place,) = [n for n, each in enumerate(filters) if each["name"] == "bursar"]
            filters[place] = http_filter

        return start_rig(self.configuration, change=change)

    def misspelt(self):
        wrong = copy.deepcopy(self.configuration)
        wrong["plans"]["small"]["budget"]["windw"] = "day"
        return wrong


def test_a_discovered_configuration_meters_and_a_wrong_one_leaves_it_in_force(start_rig, tmp_path):
    discovered = Discovered(tmp_path)
    discovered.send(discovered.configuration)
    rig = discovered.start(start_rig)
    assert ask(rig, "api.openai.com", None).code == "tenant_required"
    assert ask(rig, "other.example", None).status == 200
    discovered.send(discovered.misspelt())
    until(lambda: "plans.small.budget" in rig.envoy.log(), "the refusal")
    assert ask(rig, "api.openai.com", None).code == "tenant_required"


@pytest.mark.parametrize("rules, status", [(None, 200), ({"action": "ALLOW"}, 403)], ids=["open", "closed"])
def test_a_start_under_a_wrong_configuration_does_what_the_default_says(start_rig, tmp_path, rules, status):
    discovered = Discovered(tmp_path)
    discovered.send(discovered.misspelt())
    rig = discovered.start(start_rig, rules)
    assert "plans.small.budget" in rig.envoy.log()
    answer = ask(rig, "api.openai.com", "acme")
    assert (answer.status, answer.header("x-bursar-decision")) == (status, None)
    assert rig.metric("bursar_build_info") == 0, "which is how an alert notices it"
    discovered.send(discovered.configuration)
    until(lambda: ask(rig, "api.openai.com", "acme").header("x-bursar-decision") == "admit", "the right configuration")


# What selects which; `kubectl apply -k` takes no file that is not there.
def test_the_stores_cluster_is_the_one_that_is_tried_with_a_real_store():
    (patch,) = patches("redis.yaml")
    value = patch["patch"]["value"]
    tried = yaml.safe_load((envoy.ROOT / "envoy" / "redis-cluster.yaml").read_text(encoding="utf-8"))
    for cluster in (value, tried):
        del cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    assert value == tried


def test_the_kustomization_names_files_of_one_namespace():
    (kustomization,) = documents("kustomization.yaml")
    for name in kustomization["resources"]:
        assert {document["metadata"]["namespace"] for document in documents(name)} == {kustomization["namespace"]}, name


# TrafficExtension, WasmPlugin and Envoy Gateway's policy give the plugin configuration as YAML, which reaches the filter as JSON text.
def configuration_of(name):
    spec = documents(name)[0]["spec"]
    if name.startswith("../"):
        return spec["wasm"][0]["config"]
    return spec.get("wasm", spec)["pluginConfig"]


@pytest.mark.parametrize("name", ["traffic-extension.yaml", "wasm-plugin.yaml", "../envoy/envoy-gateway.yaml"])
def test_the_configuration_of_the_other_resources_meters_too(start_rig, name):
    config = configuration_of(name)
    assert config["hold_headers"] is False, "their API has no allow_on_headers_stop_iteration"
    rig = start_rig(config, mode=STREAMING)
    assert rig.chat(None).code == "tenant_required"
    assert rig.chat("acme").header("x-bursar-decision") == "admit"
