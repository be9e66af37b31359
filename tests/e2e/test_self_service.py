"""A caller asks the proxy for its own limits, in a real Envoy, and what it is told is what happens then."""

import json

import pytest

from harness.config import budget, plugin_config
from harness.rig import MODES

PATH = "/bursar/v1/budget"
PLANS = {"gold": {"budget": budget(2_000, "day"), "limits": [{"name": "month", "budget": budget(5, "month", "usd")}]}}


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS, self_service=PATH), mode=request.param)


def ask(rig, tenant, query="", method="GET"):
    headers = [("x-tenant-id", tenant)] if tenant else []
    return rig.get(PATH + query, method=method, headers=headers)


def test_it_is_answered_without_the_upstream_and_costs_nothing(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 300)
    answer = ask(rig, tenant)
    assert (answer.status, answer.header("content-type"), answer.header("cache-control")) == (200, "application/json", "no-store")
    told = answer.json()
    assert (told["tenant"], told["plan"]) == (tenant, "gold")
    limits = {limit["name"]: limit for limit in told["limits"]}
    assert (limits["budget"]["used"], limits["budget"]["remaining"]) == (300, 1_700)
    assert limits["month"]["unit"] == "usd"
    assert rig.upstream.of(answer.id) == []
    entry = rig.log(answer)
    assert (entry["tenant"], entry["details"], entry["charged"]) == (tenant, "bursar_self_service", None)
    assert rig.left(tenant) == 1_700


def test_the_tier_that_it_names_is_the_one_that_serves(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 1_700)
    tier = ask(rig, tenant, "?model=gpt-4o&input_tokens=10&max_tokens=10").json()["tier"]
    served = rig.chat(tenant)
    assert (tier["decision"], tier["name"], tier["model"]) == tuple(
        served.header(f"x-bursar-{name}") for name in ("decision", "tier", "model"))
    refused = ask(rig, tenant, "?model=gpt-4o&input_tokens=100000").json()["tier"]
    assert (refused["decision"], refused["limit"]) == ("throttle", "budget")


def test_who_it_is_must_be_shown(rig):
    for tenant, status, code in ((None, 401, "tenant_required"), ("nobody", 403, "tenant_unknown")):
        answer = ask(rig, tenant)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)


def test_head_is_answered_and_nothing_else_is(rig):
    tenant = rig.tenant("gold")
    head = ask(rig, tenant, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert ask(rig, tenant, method="DELETE").status == 405
