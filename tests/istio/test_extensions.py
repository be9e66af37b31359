"""TrafficExtension and WasmPlugin: the module by file, over HTTP and from a registry."""

import subprocess

import lab
import pytest
from lab import ask

FILE = "file:///var/local/bursar/bursar.wasm"
IMAGE = lab.ROOT / "target/image"   # of `make image`
OCI = "oci://registry.local:26500/bursar"
TAGGED = f"{OCI}:1"


def pinned():
    """The image by its digest: what a signature is about."""
    return f"{OCI}@{(IMAGE / 'digest').read_text(encoding='utf-8').strip()}"


def configuration():
    return lab.changed(lab.plugin_configuration(), lambda c: c.update(hold_headers=False))


def traffic_extension(url, plugin_configuration=None, **more):
    (document,) = lab.load(lab.ROOT / "istio/traffic-extension.yaml")
    document["spec"]["wasm"].update(url=url, pluginConfig=plugin_configuration or configuration(), **more)
    return document


def wasm_plugin(url, plugin_configuration=None, **more):
    (document,) = lab.load(lab.ROOT / "istio/wasm-plugin.yaml")
    document["spec"].update(url=url, pluginConfig=plugin_configuration or configuration(), **more)
    return document


@pytest.fixture(scope="module")
def registry(mesh):
    """A registry with the module's image."""
    (lab.LAB / "registry").mkdir(exist_ok=True)
    mesh.processes.start("registry", ["crane", "registry", "serve", "--address", "127.0.0.1:26500", "--disk", lab.LAB / "registry"])
    lab.until(lambda: lab.answers("http://127.0.0.1:26500/v2/"), "the registry")
    subprocess.run(["crane", "push", IMAGE / "oci", "127.0.0.1:26500/bursar:1"], check=True, capture_output=True)


def meters_updates_and_lets_go(mesh, make, url, **more):
    """What an extension has to do, from its first request to its deletion."""
    refusals = len(mesh.refusals())
    for stream in (False, True):
        answer = ask("acme", stream=stream)
        assert (answer.status, answer.decision) == (200, "admit"), answer
    assert ask(None).code == "tenant_required"
    seen, refusal = lab.spend_all("globex")
    assert seen == lab.WAY_DOWN and refusal.code == "insufficient_quota"

    lab.apply(make(url, lab.more_budget(configuration()), **more))
    served = lab.until(lambda: (answer := ask("globex")).status == 200 and answer, "the larger budget")
    assert int(served.headers["x-ratelimit-remaining-tokens"]) < 37_000, "what was spent stays spent"

    lab.apply(make(url, lab.misspelt(lab.more_budget(configuration())), **more))
    lab.until(lambda: len(mesh.refusals()) > refusals, "the refusal of a wrong configuration")
    assert ask("globex").status == 200, "the one before is in force"

    lab.apply(make(url, configuration(), **more))
    lab.until(lambda: ask("globex", max_tokens=200).status == 429, "the first budget again")
    lab.delete(make(url))
    lab.until(lambda: ask("globex").decision is None, "the extension to be gone")


@pytest.mark.parametrize("make", [traffic_extension, wasm_plugin])
def test_by_file(pod, make):
    meters_updates_and_lets_go(pod(make(FILE)), make, FILE)


def test_over_http_with_a_checksum(pod, web):
    document = traffic_extension(lab.WEB, sha256=web)
    meters_updates_and_lets_go(pod(document), traffic_extension, lab.WEB, sha256=web)


@pytest.mark.parametrize("make", [traffic_extension, wasm_plugin])
@pytest.mark.parametrize("url", [lambda: TAGGED, pinned], ids=["tag", "digest"])
def test_from_a_registry(pod, registry, make, url):
    meters_updates_and_lets_go(pod(make(url())), make, url())


def test_a_module_that_cannot_be_fetched_refuses_all_of_the_port(pod, registry):
    pod(traffic_extension("oci://registry.local:26500/nothing:1"))
    for host in ("api.openai.com", "other.example"):
        answer = ask("acme", host=host)
        assert (answer.status, answer.text) == (403, "RBAC: access denied"), answer
