"""istio/egress-gateway.yaml as it is shipped: a pod's sidecar, the mesh's mTLS, the gateway with bursar, TLS to the LLM."""

import re
import socket

import lab
import pytest
from lab import ask

GATEWAY = lab.Pod("egress-0", "istio-system", address="127.0.0.20", labels=(("istio", "egressgateway"),), kind="router",
                  ports=17000)


def application(account):
    """Its sidecar has nothing of bursar."""
    return lab.Pod(account=account, labels=(("app", "app"),))


def service():
    """What Kubernetes keeps of the gateway's Service and its pods."""
    ports = {443: 8443, 80: 8080}
    metadata = {"name": "istio-egressgateway", "namespace": "istio-system", "labels": dict(GATEWAY.labels)}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
         "spec": {"selector": dict(GATEWAY.labels), "clusterIP": "127.0.0.21", "type": "ClusterIP", "ports": [
             {"name": f"p{port}", "port": port, "targetPort": target, "protocol": "TCP"} for port, target in ports.items()]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
         "metadata": {"name": "istio-egressgateway-1", "namespace": "istio-system",
                      "labels": {"kubernetes.io/service-name": "istio-egressgateway"}},
         "addressType": "IPv4", "endpoints": [{"addresses": [GATEWAY.address], "conditions": {"ready": True}, "targetRef": {
             "kind": "Pod", "name": GATEWAY.name, "namespace": GATEWAY.namespace}}],
         "ports": [{"name": f"p{port}", "port": target, "protocol": "TCP"} for port, target in ports.items()]}]


def egress():
    """As istio/egress-gateway.yaml wants it: in the gateway's namespace."""
    documents = lab.load(lab.EGRESS)
    for document in documents:
        document["metadata"]["namespace"] = GATEWAY.namespace
    return documents


@pytest.fixture(scope="module")
def mesh():
    with lab.Mesh() as mesh:
        mesh.start(*egress(), *service(), *lab.load(lab.ROOT / "istio/egress-gateway.yaml"))
        mesh.add_pod(GATEWAY)
        mesh.start_proxy(GATEWAY, proxy_config={"extraStatTags": lab.shipped_mesh_config()["defaultConfig"]["extraStatTags"]})
        yield mesh


@pytest.fixture
def as_account(mesh):
    """as_account(name): the application's pod runs under this service account."""
    started = []

    def start(account):
        for pod in started:
            mesh.stop_proxy(pod)
        started[:] = [application(account)]
        mesh.add_pod(started[0])
        mesh.start_proxy(started[0])
        lab.until(lambda: ask(None).status in (200, 403, 429), "the way to the gateway")

    yield start
    for pod in started:
        mesh.stop_proxy(pod)


def test_the_certificate_of_a_pod_is_its_tenant_whatever_it_says(mesh, as_account):
    as_account("app")
    for header in (None, "spiffe://cluster.local/ns/team-a/sa/batch"):
        answer = ask(header)
        assert (answer.status, answer.decision, answer.model) == (200, "admit", "gpt-4o"), answer
    assert ask(None, stream=True).status == 200
    assert "sni api.openai.com" in mesh.log("tls")
    counted = ('^bursar_requests_total{tenant="spiffe://cluster.local/ns/team-a/sa/app",tier="default",decision="admit"} [3-9]$',
               '^bursar_build_info{version="[^"]+"} 1$')
    counted = [line.replace("{", r"\{").replace("}", r"\}") for line in counted]
    lab.until(lambda: all(re.search(line, lab.admin("/stats/prometheus", GATEWAY), re.M) for line in counted), "the metrics")


def test_all_pods_of_an_account_share_its_budget_and_another_account_has_its_own(mesh, as_account):
    as_account("batch")
    seen, refusal = lab.spend_all(None)
    assert seen == lab.WAY_DOWN and refusal.code == "insufficient_quota"
    as_account("batch")   # another pod of the same account, at the same gateway
    assert ask(None, max_tokens=200).status == 429
    as_account("app")
    assert ask(None).status == 200


def test_an_account_without_a_plan_is_refused(mesh, as_account):
    as_account("stranger")
    assert (ask(None).status, ask(None).code) == (403, "tenant_unknown")


def test_the_gateway_serves_nobody_without_a_certificate_of_the_mesh(mesh):
    with socket.create_connection((GATEWAY.address, 8443), timeout=10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nhost: api.openai.com\r\n\r\n")
        try:
            answer = plain.recv(1024)
        except ConnectionResetError:
            answer = b""
    assert not answer.startswith(b"HTTP/1.1")


def test_both_proxies_take_all_that_istiod_sends(mesh, as_account):
    as_account("app")
    assert mesh.refusals() == []
    assert "update_rejected: 1" not in lab.admin("/stats?filter=update_rejected") + lab.admin("/stats?filter=update_rejected", GATEWAY)
