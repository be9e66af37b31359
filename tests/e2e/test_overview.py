"""The operators' report, on a listener of its own of a real Envoy."""

import copy
import json
import re
import time

import pytest

from harness import http
from harness.config import BY_HEADER, TIERS, budget
from harness.envoy import render
from harness.wait import until

TENANTS = {"acme": {"budget": budget(1_000, "day")}, "globex": {"limits": [{"name": "month", "budget": budget(5, "month", "usd")}]}}


def with_report(doc):
    """The shipped listener beside the other, in the same VM, on any free port."""
    shipped = render.load(report=True)["static_resources"]["listeners"]
    report = copy.deepcopy(next(each for each in shipped if each["name"] == "report"))
    report["address"]["socket_address"]["port_value"] = 0
    plugin = report["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]["typed_config"]["config"]
    plugin["vm_config"] = render.wasm_config(doc)["vm_config"]
    doc["static_resources"]["listeners"].append(report)


@pytest.fixture(scope="module")
def rig(start_rig):
    return start_rig({"tenant": BY_HEADER, "tiers": TIERS, "tenants": TENANTS}, change=with_report)


def get(rig, path, method="GET"):
    statuses = json.loads(rig.envoy.admin("/listeners?format=json"))["listener_statuses"]
    port = next(each["local_address"]["socket_address"]["port_value"] for each in statuses if each["name"] == "report")
    with http.Connection(port) as connection:
        connection.send(http.head(method, path, [("host", "report.test")]))
        return connection.read(method)


def test_every_tenant_stands_there_with_what_is_left(rig):
    rig.spend("acme", 300)
    report = get(rig, "/report.json")
    assert (report.status, report.header("content-type")) == (200, "application/json")
    tenants = {each["tenant"]: {limit["name"]: limit for limit in each["limits"]} for each in report.json()["tenants"]}
    assert tenants.keys() == TENANTS.keys()
    assert (tenants["acme"]["budget"]["used"], tenants["acme"]["budget"]["remaining"]) == (300, 700)
    assert (tenants["globex"]["month"]["unit"], tenants["globex"]["month"]["remaining"]) == ("usd", 5)


def test_the_page_needs_nothing_else_and_no_script(rig):
    page = get(rig, "/")
    text = page.body.decode()
    assert page.status == 200 and "default-src 'none'" in page.header("content-security-policy")
    assert not re.search(r"(src|href)=\"?(https?:)?//", text)
    table = re.sub(r"<script>.*</script>", "", text, flags=re.S)
    assert "<td>acme</td>" in table and "<td>globex</td>" in table


def test_what_was_counted_of_each_stands_there_and_is_what_the_metrics_say(rig):
    rig.spend("acme", 100)
    assert rig.chat("stranger").status == 403

    def counted():
        report = get(rig, "/report.json").json()
        each = {tenant["tenant"]: tenant for tenant in report["tenants"]} | {"unconfigured": report["unconfigured"]}
        return each if each["acme"]["spend"] and each["unconfigured"]["refusals"] else None

    each = until(counted, "the counters to be noted")
    spend = rig.envoy.metric("bursar_spend_total", tenant="acme", model="gpt-4o")
    [row] = each["acme"]["spend"]
    assert (row["tier"], row["model"]) == ("default", "gpt-4o") and row["usd"] == spend / 1e6 > 0
    assert each["unconfigured"]["refusals"] == [{"reason": "tenant_unknown", "count": 1}]
    assert each["globex"]["spend"] == each["globex"]["refusals"] == []
    # To look does not make a counter that nobody has counted.
    names = rig.envoy.admin("/stats?filter=bursar_(spend|throttled)_total")
    assert "acme" in names and "globex" not in names
    state = get(rig, "/report.json").json()["state"]
    assert state["corrupt"] == state["given_up"] == 0 and state["store"] is None


def test_a_thousand_active_tenants_are_told_in_less_than_a_second(start_rig):
    tenants = {f"t{n}": {"budget": budget(1_000, "day")} for n in range(1_000)}
    rig = start_rig({"tenant": BY_HEADER, "tiers": TIERS, "tenants": tenants}, change=with_report)
    for tenant in tenants:
        rig.chat(tenant, usage=(10, 0))

    def all_told():
        start = time.perf_counter()
        page = get(rig, "/")
        took = time.perf_counter() - start
        return took if page.body.count(b"<td>gpt-4o 0.000025</td>") == 1_000 else None

    first = until(all_told, "all of their counters to be noted")
    print(f"the first time {1e3 * first:.0f} ms, then {1e3 * all_told():.0f} ms")
    assert first < 1 and all_told() < 1


def test_nothing_else_is_there(rig):
    assert get(rig, "/v1/models").status == 404
    assert get(rig, "/report.json", "DELETE").status == 405
