"""envoy/two-regions.yaml: Envoy itself sends what one region refuses to the other."""

from pathlib import Path

import pytest
import yaml

from harness import answers, envoy
from harness.config import BY_HEADER, TIERS
from harness.rig import MODES, chat_body
from harness.upstream import Upstream

RECIPE = Path(__file__).resolve().parents[2] / "envoy" / "two-regions.yaml"
CONFIG = {"tenant": BY_HEADER, "tiers": TIERS, "tenants": {"acme": {}}}
USAGE = answers.usage(10, 5)


@pytest.fixture(scope="module")
def other():
    upstream = Upstream()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request, other):
    recipe = yaml.safe_load(RECIPE.read_text())

    def put(doc):
        ports = {}
        for cluster in envoy.render.clusters(doc):
            if cluster["name"] == "llm":
                endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
                ports["region-one"] = endpoint["address"]["socket_address"]["port_value"]
        ports["region-two"] = other.port
        for cluster in recipe["static_resources"]["clusters"]:
            if cluster["name"] in ports:
                endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
                endpoint["address"]["socket_address"]["port_value"] = ports[cluster["name"]]
            envoy.render.clusters(doc).append(cluster)
        routes = envoy.render.hcm(recipe)["route_config"]["virtual_hosts"][0]["routes"]
        envoy.render.hcm(doc)["route_config"]["virtual_hosts"][0]["routes"][:] = routes

    return start_rig(CONFIG, mode=request.param, change=put)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [429, 503])
def test_what_one_region_refuses_the_other_serves_in_the_same_call(rig, other, status, stream):
    test_id = rig.new_id(answers.error(status))
    other.scripts[test_id] = (answers.sse_answer if stream else answers.json_answer)("gpt-4o", USAGE)
    with rig.connect() as connection:
        rig.send(connection, test_id, "acme", [chat_body(stream=stream)])
        response = connection.read()
    assert (response.status, response.header("x-bursar-tier")) == (200, "default")
    assert len(rig.upstream.of(test_id)) == len(other.of(test_id)) == 1
    # Charged once, and no tier is left for what Envoy has cured.
    assert rig.envoy.logged(test_id)["charged"] == 15
    assert rig.metric("bursar_upstream_refusals_total") == 0


def test_where_both_refuse_the_next_tier_serves(rig, other):
    test_id = rig.new_id(answers.error(429))
    other.scripts[test_id] = answers.error(429)
    with rig.connect() as connection:
        rig.send(connection, test_id, "acme", [chat_body()])
        response = connection.read()
    assert (response.status, response.header("x-bursar-reason")) == (429, "upstream_limited")
    assert rig.metric("bursar_tier_pressed", tier="default") == 1
