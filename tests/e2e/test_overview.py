"""The operators' report, on a listener of its own of a real Envoy."""

import copy
import json
import re

import pytest

from harness import http
from harness.config import BY_HEADER, TIERS, budget
from harness.envoy import render

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


def test_nothing_else_is_there(rig):
    assert get(rig, "/v1/models").status == 404
    assert get(rig, "/report.json", "DELETE").status == 405
