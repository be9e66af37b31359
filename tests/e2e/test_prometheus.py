"""A real Prometheus scrapes a real Envoy: the rules load and pass their tests, and what the pages ask is answered."""

import json
import os
import re
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml

from harness import answers, panels
from harness.config import budget, plugin_config
from harness.envoy import ROOT
from harness.stores import free_port
from harness.wait import let_pass, until

import dashboard  # noqa: E402  (harness.envoy puts envoy/ on the path)

TOOLS = ROOT / "target/tools/prometheus"
pytestmark = pytest.mark.skipif(not (TOOLS / "promtool").exists(), reason="Prometheus is neither on PATH nor was to be had: see the Makefile")
RULES = ROOT / "envoy/prometheus-rules.yaml"
MINUTES = 4   # of traffic in the picture
PLANS = {"gold": {"budget": budget(1_000, "day")}, "money": {"budget": budget(2.0, "month", "usd")}}


def promtool(*args, stdin=None):
    done = subprocess.run([str(TOOLS / "promtool"), *map(str, args)], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def test_the_rules_do_what_their_tests_say():
    for args in (("check", "rules", RULES), ("test", "rules", ROOT / "tests/prometheus/rules.yaml")):
        status, said = promtool(*args)
        assert status == 0 and "SUCCESS" in said, said


def test_each_alert_is_tried_and_explained():
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    tests = (ROOT / "tests/prometheus/rules.yaml").read_text(encoding="utf-8")
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert len(alerts) > 10 and [name for name in alerts if f"alertname: {name}" not in tests or f"`{name}`" not in page] == []


class Prometheus:
    """Scrapes an Envoy once a second."""

    def __init__(self, folder, admin_port):
        self.port = free_port()
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(RULES)],
                  "scrape_configs": [{"job_name": "llm-proxies", "metrics_path": "/stats/prometheus",
                                      "static_configs": [{"targets": [f"127.0.0.1:{admin_port}"]}]}]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self.log = open(folder / "prometheus.log", "wb")
        self.process = subprocess.Popen(
            [str(TOOLS / "prometheus"), f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/tsdb",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=self.log, stderr=self.log)

    def is_ready(self):
        assert self.process.poll() is None, "Prometheus has ended"
        try:
            return self.get("/-/ready")
        except OSError:
            return False

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()

    def query(self, query):
        """[(labels, value)]"""
        answer = json.loads(self.get("/api/v1/query", query=query))
        assert answer["status"] == "success", answer
        return [(row["metric"], float(row["value"][1])) for row in answer["data"]["result"]]

    def range(self, query, start, end, step=1):
        """[(labels, [(time, value)])]"""
        answer = json.loads(self.get("/api/v1/query_range", query=query, start=start, end=end, step=step))
        assert answer["status"] == "success", answer
        return [(row["metric"], [(time, float(value)) for time, value in row["values"]]) for row in answer["data"]["result"]]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@pytest.fixture(scope="module")
def rig(start_rig):
    return start_rig(plugin_config(PLANS, metrics={"tenants": 5}, tenants={
        "acme": {"plan": "gold"}, "globex": {"plan": "money"}, "absent": {"plan": "gold"}}))


@pytest.fixture(scope="module")
def prometheus(rig, tmp_path_factory):
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), rig.envoy.admin_port)
    try:
        until(prometheus.is_ready, "Prometheus to be ready", 60)
        until(lambda: prometheus.query('bursar_remaining{tenant="absent"}'), "the first gauges", 60)
        rig.spend("acme", 850)
        lowered = rig.chat("acme", usage=(10, 5))
        assert lowered.header("x-bursar-decision") == "downgrade"
        rig.chat("globex", usage=(500_000, 1_000))
        yield prometheus
    finally:
        prometheus.stop()


def test_what_acme_has_left_is_known_a_moment_later(prometheus):
    until(lambda: prometheus.query('bursar_remaining{tenant="acme"}')[0][1] == 135, "the gauge")
    labels, _ = prometheus.query('bursar_remaining{tenant="acme"}')[0]
    assert (labels["limit"], labels["unit"], labels["job"]) == ("budget", "tokens", "llm-proxies")
    assert prometheus.query("bursar_build_info")[0][1] == 1


def test_an_alert_fires_for_a_budget_that_is_nearly_spent_and_for_no_other(prometheus):
    def firing():
        alerts = prometheus.query('ALERTS{alertstate="firing",alertname=~"BursarBudget.*"}')
        return {(labels["alertname"], labels["tenant"]) for labels, _ in alerts}
    wanted = {("BursarBudgetNearlySpent", "acme"), ("BursarBudgetHalfSpent", "globex")}
    until(lambda: firing() == wanted, f"{wanted} to fire")
    assert prometheus.query('ALERTS{alertname="BursarNotLoaded"}') == []


def queries():
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```promql\n(.*?)^```$", page, re.M | re.S):
        for line in block.splitlines():
            if line and not line.startswith("#"):
                yield line


# Those that answer one of the four questions must have an answer.
@pytest.mark.parametrize("query", list(queries()))
def test_a_query_of_the_page_is_answered(prometheus, query):
    must = any(word in query for word in ("bursar_remaining", "topk", "bursar_downgraded_total[", "bursar_used"))
    must = must and "upstream_limited" not in query and "rate(" not in query
    until(lambda: prometheus.query(query) or not must, f"an answer to {query}")


PANELS = [(panel["title"], target["expr"]) for panel in dashboard.dashboard()["panels"] for target in panel["targets"]]


# A panel about what has not happened in this test is empty.
@pytest.mark.parametrize("title,query", PANELS, ids=[title for title, _ in PANELS])
def test_a_panel_of_the_dashboard_is_answered(prometheus, title, query):
    query = query.replace("$tenant", ".*").replace("$__rate_interval", "1m")
    empty = {"Will not last until its window ends", "Refused, and by which limit", "Providers that say no"}
    until(lambda: prometheus.query(query) or title in empty, f"an answer to {query}")


# What each panel shows is drawn, since there is no Grafana that a test could start.
def test_the_dashboard_is_drawn_with_what_prometheus_has(prometheus, tmp_path):
    pytest.importorskip("matplotlib", reason="`make pictures` installs it")
    picture, now = tmp_path / "dashboard.png", time.time()
    panels.draw(dashboard.dashboard()["panels"], prometheus, picture, now - 10, now, "10s")
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


@pytest.mark.skipif("PICTURES" not in os.environ, reason="takes some minutes: `make pictures`")
def test_the_picture_of_the_dashboard(start_rig, tmp_path):
    tenants = {"acme": {"plan": "gold"}, "globex": {"plan": "gold"}, "initech": {"plan": "silver"}}
    plans = {"gold": {"budget": budget(20.0, "month", "usd")}, "silver": {"limits": [{"name": "day", "budget": budget(60_000, "day")}]}}
    rig = start_rig(plugin_config(plans, metrics={"tenants": 5}, tenants=tenants, credentials="shared"))
    prometheus = Prometheus(tmp_path, rig.envoy.admin_port)
    try:
        until(prometheus.is_ready, "Prometheus to be ready", 60)
        start = time.time()
        traffic(rig, start + MINUTES * 60)
        panels.draw(dashboard.dashboard()["panels"], prometheus, Path(os.environ["PICTURES"]) / "dashboard.png", start + 20, time.time(), "20s")
    finally:
        prometheus.stop()


def traffic(rig, end):
    """Three tenants until then; in the middle, the provider refuses the first model for a while."""
    begin = time.time()
    refused = answers.error(429)
    refused.headers.append(("retry-after", 20))
    while (now := time.time()) < end:
        part = (now - begin) / (end - begin)
        for tenant, used in (("acme", 12_000), ("globex", 4_000), ("initech", 300)):
            if tenant != "globex" or part % 0.25 < 0.1:
                rig.chat(tenant, usage=(used, used // 10), max_tokens=used // 10)
        if 0.5 < part < 0.55:
            rig.chat("globex", answer=refused)
        let_pass(0.25)


def test_the_dashboard_in_the_tree_is_the_one_that_is_written():
    assert dashboard.PATH.read_text(encoding="utf-8") == dashboard.text(), "run `make dashboard`"


# Lint of names and help texts, which Envoy has none of, ends with 3; what cannot be read with 1.
def test_what_is_scraped_is_well_formed(rig):
    text = rig.envoy.admin("/stats/prometheus?filter=bursar")
    status, said = promtool("check", "metrics", stdin=text.encode())
    assert status in (0, 3), said
    assert not [line for line in said.splitlines() if line.startswith("bursar_") and "no help text" not in line], said
