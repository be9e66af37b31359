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


def port_of(rig):
    statuses = json.loads(rig.envoy.admin("/listeners?format=json"))["listener_statuses"]
    return next(each["local_address"]["socket_address"]["port_value"] for each in statuses if each["name"] == "report")


def get(rig, path, method="GET"):
    with http.Connection(port_of(rig)) as connection:
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


@pytest.fixture(scope="module")
def large(start_rig):
    """100,000 tenants, and one worker, whose ticks read a report of a thousand of them in about a second."""
    tenants = {f"Team-{n}": {"plan": "day"} for n in range(100_000)}
    return start_rig({"tenant": BY_HEADER, "tiers": TIERS, "plans": {"day": {"budget": budget(1_000, "day")}}, "tenants": tenants},
                     change=with_report, concurrency=1)


def test_a_page_of_many_is_read_in_part_by_part(large):
    large.spend("Team-54321", 300)
    pages = [get(large, f"/report.json?page={page}").json() for page in (1, 100)]
    for page, first in zip(pages, (0, 99_000)):
        assert (page["count"], page["pages"]) == (100_000, 100)
        assert [tenant["tenant"] for tenant in page["tenants"]] == [f"Team-{n}" for n in range(first, first + 1_000)]
    (found,) = get(large, "/report.json?find=team-54321").json()["tenants"]
    assert (found["tenant"], found["limits"][0]["used"]) == ("Team-54321", 300)


def test_whoever_waits_for_it_holds_up_no_other(large):
    port = port_of(large)
    one, impatient, other, with_body = [http.Connection(port) for _ in range(4)]
    one.send(http.head("GET", "/", [("host", "report.test")]))
    impatient.send(http.head("GET", "/", [("host", "report.test")]))
    other.send(http.head("GET", "/report.json?page=2", [("host", "report.test")]))
    with_body.send(http.head("GET", "/report.json?page=3", [("host", "report.test"), ("transfer-encoding", "chunked")]), *http.chunked([b"x" * 100]))
    assert large.chat("Team-7", usage=(10, 0)).status == 200
    impatient.close()
    assert b"<td>Team-999</td>" in one.read("GET").body
    for connection, first in ((other, 1_000), (with_body, 2_000)):
        assert connection.read("GET").json()["tenants"][0]["tenant"] == f"Team-{first}"
        connection.close()
    one.close()


def test_too_many_at_once_are_told_to_come_back(large):
    connections = [http.Connection(port_of(large)) for _ in range(12)]
    for connection in connections:
        connection.send(http.head("GET", "/report.json", [("host", "report.test")]))
    answers = [connection.read("GET") for connection in connections]
    for connection in connections:
        connection.close()
    refused = [answer for answer in answers if answer.status == 503]
    assert refused and {answer.header("retry-after") for answer in refused} == {"1"}
    served = [answer for answer in answers if answer.status == 200]
    assert len(served) >= 8 and {len(answer.json()["tenants"]) for answer in served} == {1_000}
