"""make report: what a log comes to, why one request was decided so, and the charges as FOCUS has them."""

import csv
import json
import subprocess
import sys

import pytest

from harness.envoy import ROOT


def entry(time, request_id, tenant, model, decision="admit", cluster="openai", **said):
    said = dict({"tenant": tenant, "model": model, "requested_model": "gpt-4o", "decision": decision}, **said)
    return json.dumps({"time": time, "request_id": request_id, "status": 200, "cluster": cluster, "bursar": json.dumps(said)})


def other(time, status, tenant):
    """One that no tier was chosen for."""
    return json.dumps({"time": time, "request_id": "o", "status": status, "cluster": None, "bursar": json.dumps({"tenant": tenant})})


def used(tokens, spend, by="usage"):
    return {"input_tokens": tokens, "cached_tokens": 0, "output_tokens": 1, "charged": tokens + 1, "spend": spend, "settled_by": by}


LINES = [
    entry("2026-11-28T23:59:59.999Z", "a", "acme", "gpt-4o", **used(100, 1_250_000)),
    entry("2026-11-29T00:00:00.000Z", "b", "acme", "gpt-4o", **used(10, 5)),
    entry("2026-11-29T08:00:00.000Z", "c", "acme", "gpt-4o-mini", "downgrade", reason="budget_low", mark=0.2, remaining=99, **used(20, 7)),
    entry("2026-11-29T09:00:00.000Z", "d", "globex", "gpt-4o", "throttle", reason="budget_exhausted", limit="day", remaining=0),
    entry("2026-11-29T10:00:00.000Z", "e", "globex", "gpt-4o", **used(3_000, 900_000, "estimate")),
    entry("2026-11-29T11:00:00.000Z", "f", "globex", "gpt-4o", **used(0, 0, "none")),
    other("2026-11-27T10:00:00.000Z", 400, "acme"),
    other("2026-11-27T10:00:00.000Z", 200, "acme"),
    json.dumps({"time": "2026-11-29T10:00:00.000Z", "request_id": "g", "bursar": None}),
    json.dumps({"time": "2026-11-29T10:00:00.000Z", "request_id": "h", "bursar": "-"}),
    "[2026-11-29 10:00:00][info] a line of Envoy's own",
    "",
]


@pytest.fixture()
def log(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def report(log, *args):
    done = subprocess.run([sys.executable, str(ROOT / "envoy/report.py"), str(log), *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_spend_is_summed_by_day_tenant_and_model(log):
    status, said, warned = report(log)
    assert status == 0
    rows = [line.split() for line in said.splitlines()]
    assert rows[0] == ["day", "tenant", "model", "requests", "downgraded", "refused", "input_tokens", "cached_tokens", "output_tokens", "usd"]
    # A request that was refused before it had a model is one; what asked how much is left is none.
    assert rows[1] == ["2026-11-27", "acme", "1", "0", "1", "0", "0", "0", "0.000000"]
    rows = [rows[0], *rows[2:]]
    assert rows[1] == ["2026-11-28", "acme", "gpt-4o", "1", "0", "0", "100", "0", "1", "1.250000"]
    assert rows[2] == ["2026-11-29", "globex", "gpt-4o", "3", "0", "1", "3000", "0", "2", "0.900000"]
    assert [row[1:3] for row in rows[3:]] == [["acme", "gpt-4o-mini"], ["acme", "gpt-4o"]]
    assert "1 lines are no entries" in warned


def test_a_log_that_is_not_there_is_named(tmp_path):
    status, _, said = report(tmp_path / "none.log")
    assert status == 1 and said.endswith("none.log cannot be read: No such file or directory\n") and "Traceback" not in said


def test_what_was_refused_was_not_sent(log):
    assert "would have been sent: gpt-4o" in report(log, "--request", "d")[1]


def test_who_spent_most_on_a_day(log):
    _, said, _ = report(log, "--day", "2026-11-29", "--by", "tenant")
    assert [(row.split()[0], row.split()[-1]) for row in said.splitlines()[1:]] == [("globex", "0.900000"), ("acme", "0.000012")]


def test_why_one_request_was_lowered(log):
    status, said, _ = report(log, "--request", "c")
    assert status == 0
    assert said.splitlines()[0] == "2026-11-29T08:00:00.000Z acme: downgrade, budget_low"
    assert "  asked for: gpt-4o\n  sent: gpt-4o-mini\n" in said and "below this share of it: 0.2" in said
    assert report(log, "--request", "nobody's")[0] != 0


def test_why_a_tenants_last_request_was_lowered_or_refused(log):
    status, said, _ = report(log, "--why", "globex")
    assert status == 0 and said.startswith("2026-11-29T09:00:00.000Z globex: throttle, budget_exhausted\n") and said.endswith("  request: d\n")
    assert report(log, "--why", "acme")[1].splitlines()[0] == "2026-11-29T08:00:00.000Z acme: downgrade, budget_low"
    assert report(log, "--why", "acme", "--day", "2026-11-27")[1].splitlines()[0] == "2026-11-27T10:00:00.000Z acme: refused"
    assert report(log, "--why", "acme", "--day", "2026-11-28")[0] != 0


def test_a_day_without_a_request_is_said_to_be_one(log):
    assert report(log, "--day", "2026-11-20")[:2] == (0, "the log has no request of 2026-11-20\n")


def test_charges_are_those_of_focus_and_come_to_the_same_sum(log, tmp_path):
    centres = tmp_path / "centres.json"
    centres.write_text('{"acme": "4711"}', encoding="utf-8")
    path = tmp_path / "charges.csv"
    status, said, _ = report(log, "--focus", str(path), "--cost-centres", str(centres))
    assert status == 0 and "4 charges, 2.150012 USD" in said
    with path.open(encoding="utf-8", newline="") as file:
        charges = list(csv.DictReader(file))
    first = charges[0]
    assert (first["BilledCost"], first["SubAccountId"], first["SkuId"], first["ProviderName"]) == ("1.25", "acme", "gpt-4o", "openai")
    assert (first["ChargePeriodStart"], first["ChargePeriodEnd"]) == ("2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z")
    assert (first["BillingPeriodStart"], first["BillingPeriodEnd"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert json.loads(first["Tags"]) == {"cost_centre": "4711"} and json.loads(charges[-1]["Tags"]) == {}
    must_not_be_null = set(first) - {"ChargeClass"}
    assert [name for charge in charges for name in must_not_be_null if charge[name] == ""] == []
