#!/usr/bin/env python3
"""Writes envoy/grafana-dashboard.json, whose panels answer operators' questions. `make dashboard` runs this script; import the file into
Grafana (10 or later).

The format is Grafana's dashboard JSON, schema version 39 (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/
view-dashboard-json-model/, read 2026-11-29).
"""

import json
import sys
from pathlib import Path

PATH = Path(__file__).resolve().with_name("grafana-dashboard.json")
SOURCE = {"type": "prometheus", "uid": "${source}"}
OF = 'tenant=~"$tenant"'

# (title, kind, unit, width of 24, [(query, legend)])
PANELS = [
    ("What is left of each budget", "bargauge", "percentunit", 12,
     [(f'bursar_remaining{{unit!="requests",{OF}}} / (bursar_limit > 0)', "{{tenant}} {{limit}}")]),
    ("Will not last until its window ends", "table", "percentunit", 12,
     [(f"bursar:lasting:ratio1h{{{OF}}} < 1", "")]),
    ("Left, in dollars", "timeseries", "currencyUSD", 12,
     [(f'bursar_remaining{{unit="usd_micros",{OF}}} / 1e6', "{{tenant}} {{limit}}")]),
    ("Left, in tokens", "timeseries", "short", 12,
     [(f'bursar_remaining{{unit="tokens",{OF}}}', "{{tenant}} {{limit}}")]),
    ("Spend by tenant, dollars an hour", "timeseries", "currencyUSD", 8,
     [(f"sum by (tenant) (rate(bursar_spend_total{{{OF}}}[$__rate_interval])) * 3600 / 1e6", "{{tenant}}")]),
    ("Spend by model, dollars an hour", "timeseries", "currencyUSD", 8,
     [(f"sum by (model) (rate(bursar_spend_total{{{OF}}}[$__rate_interval])) * 3600 / 1e6", "{{model}}")]),
    ("Saved by cheaper models, dollars an hour", "timeseries", "currencyUSD", 8,
     [(f"sum by (tenant) (rate(bursar_saved_total{{{OF}}}[$__rate_interval])) * 3600 / 1e6", "{{tenant}}")]),
    ("Requests by decision", "timeseries", "reqps", 8,
     [(f"sum by (decision) (rate(bursar_requests_total{{{OF}}}[$__rate_interval]))", "{{decision}}")]),
    ("Downgraded, and why", "timeseries", "reqps", 8,
     [(f"sum by (tenant, reason) (rate(bursar_downgraded_total{{{OF}}}[$__rate_interval]))", "{{tenant}} {{reason}}")]),
    ("Refused, and by which limit", "timeseries", "reqps", 8,
     [(f"sum by (tenant, limit, reason) (rate(bursar_limited_total{{{OF}}}[$__rate_interval]))", "{{tenant}} {{limit}} {{reason}}")]),
    ("Providers that say no", "timeseries", "reqps", 12,
     [("sum by (model, kind) (rate(bursar_upstream_refusals_total[$__rate_interval]))", "{{model}} {{kind}}")]),
    ("Tiers that are left alone", "stat", "short", 4, [("sum(bursar_tier_pressed) or vector(0)", "")]),
    ("Faults of bursar's own state", "stat", "short", 4,
     [("sum(increase(bursar_state_given_up_total[1h]) + increase(bursar_state_corrupt_total[1h]))", "")]),
    ("Versions", "stat", "short", 4, [("count by (version) (bursar_build_info)", "{{version}}")]),
]
HEIGHT = 8


def panel(number, at, title, kind, unit, width, queries):
    targets = [{"refId": chr(ord("A") + place), "datasource": SOURCE, "expr": query, "legendFormat": legend,
                "instant": kind != "timeseries", "range": kind == "timeseries", "format": "table" if kind == "table" else "time_series"}
               for place, (query, legend) in enumerate(queries)]
    return {"id": number, "title": title, "type": kind, "datasource": SOURCE, "targets": targets,
            "gridPos": {"x": at % 24, "y": at // 24 * HEIGHT, "w": width, "h": HEIGHT},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {}}


def dashboard():
    panels, at = [], 0
    for number, (title, kind, unit, width, queries) in enumerate(PANELS, 1):
        panels.append(panel(number, at, title, kind, unit, width, queries))
        at += width
    tenants = {"name": "tenant", "label": "Tenant", "type": "query", "datasource": SOURCE, "query": "label_values(bursar_limit, tenant)",
               "includeAll": True, "multi": True, "allValue": ".*", "refresh": 2, "sort": 1, "current": {"text": "All", "value": "$__all"}}
    source = {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    return {"uid": "bursar", "title": "bursar: LLM budgets", "tags": ["bursar"], "schemaVersion": 39, "timezone": "utc", "refresh": "30s",
            "time": {"from": "now-6h", "to": "now"}, "templating": {"list": [source, tenants]}, "panels": panels, "editable": True}


def text():
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
    print(f"{PATH.name}: {len(PANELS)} panels", file=sys.stderr)
