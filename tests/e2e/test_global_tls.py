"""The store behind TLS: Envoys that speak it to a TLS listener in front of the store, with the `transport_socket` that
envoy/redis-cluster.yaml shows."""

import re

import pytest
import yaml

from harness import envoy
from harness.certificates import OPENSSL, Authority
from harness.config import budget
from harness.fleet import BIG, ask, granted, served, spend
from harness.wait import until

SHIPPED = envoy.ROOT / "envoy" / "redis-cluster.yaml"

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="there is no openssl to make certificates with")


def shipped_transport_socket(authority, name="localhost"):
    """The one that the shipped cluster has in comments, for this authority and this name of the store."""
    _, text = SHIPPED.read_text(encoding="utf-8").split("# With TLS:\n")
    text = re.sub("^# ?", "", text, flags=re.MULTILINE)
    text = text.replace("redis.example.com", name).replace("/etc/ssl/certs/ca-certificates.crt", str(authority.certificate))
    assert str(authority.certificate) in text and name in text
    return yaml.safe_load(text)["transport_socket"]


def authority(folder, name):
    (folder / name).mkdir()
    return Authority(folder / name)


@pytest.fixture
def front(tmp_path, store):
    """The port of a TLS listener in front of the store, and the authority of its certificate."""
    known = authority(tmp_path, "known")
    doc = {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [{
                "name": "store", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                "filter_chains": [{"transport_socket": known.server(), "filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "store", "cluster": "store"}}]}]}],
            "clusters": []}}
    envoy.add_cluster(doc, "store", store.port)
    (tmp_path / "front").mkdir()
    front = envoy.Envoy(tmp_path / "front", doc).wait_ready()
    yield front, known
    front.kill()


def test_a_budget_is_shared_over_tls(fleet, front, store):
    front, known = front
    fleet = fleet({"gold": {"budget": budget(40 * BIG, "month")}}, port=front.port, transport_socket=shipped_transport_socket(known))
    assert 38 <= served(spend(fleet.rigs, "gold-0", 60)) <= 40
    assert granted(store, "gold-0") <= 40 * BIG
    assert front.stat("ssl.handshake$") > 0 and front.stat("ssl.connection_error$") == 0


# Who could stand between a proxy and its store could tell it that all is free.
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_store_that_is_not_the_one_is_asked_nothing(fleet, front, store, tmp_path, wrong):
    front, known = front
    socket = shipped_transport_socket(authority(tmp_path, "other") if wrong == "authority" else known)
    if wrong == "name":
        context = socket["typed_config"]["common_tls_context"]["validation_context"]
        (allowed,) = context["match_typed_subject_alt_names"]
        allowed["matcher"]["exact"] = "elsewhere.example.com"
    fleet = fleet({"gold": {"budget": budget(40 * BIG, "month")}}, proxies=1, port=front.port, transport_socket=socket)
    (rig,) = fleet.rigs
    assert served([ask(rig, "gold-0") for _ in range(3)]) == 0
    until(lambda: ask(rig, "gold-0").header("x-bursar-reason") == "global_unreachable", "the reason")
    until(lambda: "does not answer" in rig.envoy.log(), "the log")
    assert granted_nothing(store)


def granted_nothing(store):
    return store.call(b"*1\r\n$6\r\nDBSIZE\r\n") == b":0\r\n"
