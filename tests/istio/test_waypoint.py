"""bursar's place in a waypoint: where istiod puts it. No traffic is sent over HBONE."""

import lab
import pytest

WAYPOINT = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
WAYPOINT_LABELS = {"gateway.networking.k8s.io/gateway-name": "waypoint",
                   "gateway.istio.io/managed": "istio.io-mesh-controller"}
# Filters of Istio's own that a vanilla Envoy lacks.
ISTIO_ONLY = ("waypoint_downstream_peer_metadata", "waypoint_upstream_peer_metadata", "connect_authority")


def without_istios_own_filters():
    patches = [{"applyTo": "HTTP_FILTER", "patch": {"operation": "REMOVE"}, "match": {
        "context": "SIDECAR_INBOUND", "listener": {"filterChain": {"filter": {
            "name": "envoy.filters.network.http_connection_manager", "subFilter": {"name": name}}}}}} for name in ISTIO_ONLY]
    # It leads to other clusters' networks, by an object of Istio's own.
    patches.append({"applyTo": "LISTENER", "patch": {"operation": "REMOVE"}, "match": {
        "context": "SIDECAR_INBOUND", "listener": {"name": "inner_connect_originate"}}})
    return {"apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter",
            "metadata": {"name": "vanilla", "namespace": "team-a"},
            "spec": {"targetRefs": [WAYPOINT], "priority": -10, "configPatches": patches}}


@pytest.fixture(scope="module")
def waypoint():
    egress = lab.load(lab.EGRESS)
    for document in egress:
        if document["kind"] == "ServiceEntry":
            document["metadata"]["labels"] = {"istio.io/use-waypoint": "waypoint"}
    with lab.Mesh() as mesh:
        mesh.start(
            *egress, without_istios_own_filters(),
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "istio-waypoint"},
             "spec": {"controllerName": "istio.io/mesh-controller"}},
            {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
             "metadata": {"name": "waypoint", "namespace": "team-a", "labels": {"istio.io/waypoint-for": "all"}},
             "spec": {"gatewayClassName": "istio-waypoint", "listeners": [
                 {"name": "mesh", "port": 15008, "protocol": "HBONE"}]}},
            lab.extension("team-a", targetRefs=[WAYPOINT]), PILOT_ENABLE_AMBIENT="true")
        pod = lab.Pod("waypoint-0", address="127.0.0.11", labels=tuple(WAYPOINT_LABELS.items()), kind="waypoint")
        mesh.add_pod(pod)
        mesh.start_proxy(pod, environment={"ISTIO_META_ENABLE_HBONE": "true", "PEER_METADATA_DISCOVERY": "false"})
        yield mesh


def inner_chains():
    return [names for listener, names in lab.http_filters() if listener == "main_internal"]


def test_an_extension_of_the_waypoint_stands_before_its_router(waypoint):
    lab.until(lambda: any("bursar" in name for names in inner_chains() for name in names), "bursar in the waypoint")
    for listener, names in lab.http_filters():
        metered = [name for name in names if "bursar" in name]
        assert bool(metered) == (listener == "main_internal"), (listener, names)
        assert not metered or names.index(metered[0]) < len(names) - 1
    assert waypoint.refusals() == []


def test_the_shipped_filter_of_the_waypoint_stands_there_too(waypoint):
    lab.delete(lab.extension("team-a", targetRefs=[WAYPOINT]))
    lab.until(lambda: not any("bursar" in name for names in inner_chains() for name in names), "the extension to be gone")
    document = lab.shipped_filter()
    del document["spec"]["workloadSelector"]
    document["spec"]["targetRefs"] = [WAYPOINT]
    (patch,) = document["spec"]["configPatches"]
    patch["match"]["context"] = "SIDECAR_INBOUND"
    del patch["match"]["listener"]["portNumber"]
    patch["match"]["listener"]["name"] = "main_internal"
    lab.apply(document)
    lab.until(lambda: any("bursar" in names for names in inner_chains()), "bursar in the waypoint")
    assert waypoint.refusals() == []
