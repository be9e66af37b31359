"""All that ships, in a real kube-apiserver with Istio's CRDs: their schemas and CEL rules, and Kubernetes' own limits, count here."""

import base64
import copy
import json
import os
from pathlib import Path

import cluster
import lab
import pytest
import yaml
from test_kustomization import SHIPPED, build

# Not for the API: kustomize reads the one, `istioctl install` the other (test_sidecar.py). pod-template.yaml is a patch, see below.
NOT_OBJECTS = {"kustomization.yaml", "mesh-config.yaml", "pod-template.yaml"}
FILES = sorted(path.name for path in SHIPPED.glob("*.yaml") if path.name not in NOT_OBJECTS)
APP = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "app", "namespace": "team-a"}, "spec": {
    "selector": {"matchLabels": {"app": "app"}},
    "template": {"metadata": {"labels": {"app": "app"}}, "spec": {"containers": [{"name": "app", "image": "app"}]}}}}


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with cluster.Cluster(tmp_path_factory.mktemp("cluster")) as api:
        yield api


def kept(api, document):
    """What the API has of it."""
    status, found = api.ask("GET", api.path_of(document))
    assert status == 200, found
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_taken_and_nothing_of_it_is_dropped(api, name):
    for document in lab.load(SHIPPED / name):
        api.must_apply(document)
        found = kept(api, document)
        if document["apiVersion"].split("/")[0].endswith("istio.io"):
            assert found["spec"] == document["spec"], "pruned by the schema"


def test_the_kustomization_is_taken(api):
    documents = [document for document in yaml.safe_load_all(build(SHIPPED)) if document]
    assert documents
    for document in documents:
        api.must_apply(document)


def test_the_patch_for_pods_is_taken_by_a_deployment(api):
    api.must_apply(APP)
    patch = lab.load(SHIPPED / "pod-template.yaml")[0]
    status, answer = api.ask("PATCH", api.path_of(APP) + "?fieldValidation=Strict", json.dumps(patch).encode(),
                             "application/strategic-merge-patch+json")
    assert status == 200, answer
    template, wanted = answer["spec"]["template"]["metadata"], patch["spec"]["template"]["metadata"]
    assert template["annotations"] == wanted["annotations"]
    assert template["labels"] == {"app": "app", **wanted["labels"]}


TOO_LONG = "Too long: may not be more than 1048576 bytes"


def configmap(module):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bursar", "namespace": "team-a"},
            "binaryData": {"bursar.wasm": base64.b64encode(module).decode()}}


def create(api, document):
    """As `kubectl create`."""
    path = api.path_of(document)
    api.ask("DELETE", path)
    return api.ask("POST", path.rpartition("/")[0], json.dumps(document).encode())


def test_a_configmap_holds_the_module_and_not_more_than_a_mebibyte(api):
    module = Path(os.environ["WASM"]).read_bytes()
    status, answer = create(api, configmap(module))
    assert status == 201, answer
    assert base64.b64decode(kept(api, configmap(b""))["binaryData"]["bursar.wasm"]) == module
    assert create(api, configmap(bytes(1 << 20)))[0] == 201
    status, answer = create(api, configmap(bytes((1 << 20) + 1)))
    assert (status, TOO_LONG in answer["message"]) == (422, True), answer
    assert f'"{TOO_LONG}"' in (lab.ROOT / "docs/istio.md").read_text(encoding="utf-8")


# (file, kind, where in it, what is put there, the API's status, what it says): each is a file that ships, with one mistake. What is not
# even of the schema's form gets 500 from a server-side apply.
MISTAKES = {
    "CEL: an address of no known scheme": (
        "traffic-extension.yaml", "TrafficExtension", "spec.wasm.url", "ftp://host/bursar.wasm", 422,
        "url must have schema one of [http, https, file, oci]"),
    "CEL: neither wasm nor lua": (
        "traffic-extension.yaml", "TrafficExtension", "spec.wasm", None, 422, "exactly one of wasm or lua must be set"),
    "CEL: a plugin for a wildcard": (
        "wasm-plugin.yaml", "WasmPlugin", "spec.selector.matchLabels", {"bursar": "*"}, 422,
        "wildcard not allowed in label value match"),
    "CEL: pods chosen twice": (
        "envoyfilter.yaml", "EnvoyFilter", "spec.targetRefs", [{"kind": "Gateway", "group": "gateway.networking.k8s.io", "name": "a"}], 422,
        "only one of targetRefs or workloadSelector can be set"),
    "CEL: a range of addresses under DNS": (
        "openai-egress.yaml", "ServiceEntry", "spec.addresses", ["10.0.0.0/8"], 422,
        "CIDR addresses are allowed only for NONE/STATIC resolution"),
    "schema: a value that is none of the enumeration's": (
        "registry-only.yaml", "Sidecar", "spec.outboundTrafficPolicy.mode", "REGISTRY", 422, "Unsupported value"),
    "schema: a number in place of an object": (
        "traffic-extension.yaml", "TrafficExtension", "spec.wasm.pluginConfig", 7, 500, "expected map, got &{7}"),
    "schema: an unknown field": (
        "openai-egress.yaml", "DestinationRule", "spec.trafficPolicies", {}, 500, "field not declared in schema"),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused(api, mistake):
    file, kind, where, value, wanted, told = mistake
    (document,) = [copy.deepcopy(each) for each in lab.load(SHIPPED / file) if each["kind"] == kind]
    document["metadata"]["name"] = "mistaken"
    *parents, last = where.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    if value is None:
        del place[last]
    status, answer = api.apply(document)
    assert (status, told in answer["message"]) == (wanted, True), answer
    assert api.ask("GET", api.path_of(document))[0] == 404
