"""bursar where many pods' traffic meets: in an egress gateway."""

import lab
import pytest
from lab import ask

GATEWAY_ADDRESS = ("127.0.0.1", 8080)
GATEWAY_LABELS = {"istio": "egressgateway"}
POD = lab.Pod("egress-0", "istio-system", labels=tuple(GATEWAY_LABELS.items()), kind="router")


def at_the_gateway(tenant, **how):
    return ask(tenant, address=GATEWAY_ADDRESS, **how)


def gateway_filter():
    """The shipped EnvoyFilter, for the gateway."""
    document = lab.shipped_filter()
    document["metadata"]["namespace"] = "istio-system"
    document["spec"]["workloadSelector"]["labels"] = GATEWAY_LABELS
    (patch,) = document["spec"]["configPatches"]
    patch["match"]["context"] = "GATEWAY"
    patch["match"]["listener"]["portNumber"] = 8080
    return document


GATEWAY = [
    {"apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "llm", "namespace": "istio-system"},
     "spec": {"selector": GATEWAY_LABELS, "servers": [
         {"port": {"number": 8080, "name": "http", "protocol": "HTTP"}, "hosts": ["api.openai.com"]}]}},
    {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "llm", "namespace": "istio-system"},
     "spec": {"hosts": ["api.openai.com"], "gateways": ["llm"], "http": [
         {"route": [{"destination": {"host": "api.openai.com", "port": {"number": 80}}}]}]}},
]


@pytest.fixture(scope="module")
def gateway():
    with lab.Mesh() as mesh:
        mesh.start(*lab.load(lab.EGRESS), *GATEWAY, gateway_filter())
        mesh.add_pod(POD)
        mesh.start_proxy(POD)
        lab.until(lambda: at_the_gateway("acme").status == 200, "the gateway's routes")
        yield mesh


def test_a_gateway_meters_by_the_same_filter(gateway):
    assert lab.rejected() == 0
    assert at_the_gateway(None).code == "tenant_required"
    assert at_the_gateway("acme").decision == "admit"
    seen, refusal = lab.spend_all("globex", address=GATEWAY_ADDRESS)
    assert seen == lab.WAY_DOWN and refusal.code == "insufficient_quota"
    assert "sni api.openai.com" in gateway.log("tls")


def test_a_gateway_meters_by_a_traffic_extension(gateway):
    lab.delete(gateway_filter())
    lab.until(lambda: at_the_gateway(None).status == 200, "the filter to be gone")
    lab.apply(lab.extension("istio-system", selector={"matchLabels": GATEWAY_LABELS}))
    lab.until(lambda: at_the_gateway(None).status == 401, "the extension")
    assert at_the_gateway("acme").decision == "admit"
    assert lab.rejected() == 0
