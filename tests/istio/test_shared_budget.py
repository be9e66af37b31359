"""istio/redis.yaml: a budget in a real Redis, as its comment says how, outlives the pod that spent from it."""

import json
import socket

import lab
import pytest

PASSWORD = "BURSAR_REDIS_PASSWORD"
SHARED = {"redis": {"cluster": "bursar-redis", "user": "bursar", "password_env": PASSWORD}, "domain": "llm"}
BUDGET = 4_000


def filter_of_shared_budgets():
    document = lab.shipped_filter()
    plugin = lab.plugin(document)
    plugin["vm_config"]["environment_variables"] = {"host_env_keys": [PASSWORD]}
    plugin["configuration"]["value"] = json.dumps({**lab.plugin_configuration(), "global": SHARED})
    return document


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    with lab.Mesh() as mesh:
        mesh.processes.start("redis", [lab.ROOT / "target/tools/stores/redis-server", lab.ROOT / "envoy/redis.conf",
                                       "--bind", "127.0.0.1", "--dir", tmp_path_factory.mktemp("redis")])
        lab.until(lambda: is_open(6379), "Redis")
        mesh.start(*lab.load(lab.EGRESS), *lab.load(lab.ROOT / "istio/redis.yaml"), filter_of_shared_budgets())
        mesh.add_pod()
        yield mesh


def left_after_a_request(mesh):
    answer = lab.ask("globex", max_tokens=200)
    assert (answer.status, mesh.refusals()) == (200, []), answer
    return int(answer.headers["x-ratelimit-remaining-tokens"])


def test_what_one_pod_spent_is_spent_for_the_next(mesh):
    mesh.start_proxy(environment={PASSWORD: "change-me"})
    left = [left_after_a_request(mesh) for _ in range(3)][-1]
    assert left <= BUDGET - 3 * 200
    mesh.stop_proxy()
    mesh.start_proxy(environment={PASSWORD: "change-me"})
    assert left_after_a_request(mesh) < left
