"""`make replay`: a trace, a crowd, a hot tenant, a flood. Its exit status is 1 if a budget was overspent or the books disagree."""

import os
import re
import subprocess
import sys

from harness.envoy import ROOT, render

AGREE = "The books agree to the token and the micro-dollar"
NOBODY = "Overspent by: nobody."


def run(*words):
    """What it printed; it has to succeed."""
    status, told = run_through(*words)
    assert status == 0, told
    return told


def run_through(*words):
    """Its exit status, and what it printed."""
    env = dict(os.environ, ENVOY=render.envoy_binary())
    done = subprocess.run([sys.executable, str(ROOT / "tests/replay"), *words], env=env, cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    return done.returncode, done.stdout.decode()


def replay(*words):
    told = run(*words)
    assert AGREE in told and NOBODY in told, told
    return told


def row(told, first):
    """The cells of the one table row that begins with this word."""
    rows = [line.split() for line in told.splitlines() if line.split()[:1] == [first]]
    assert len(rows) == 1, told
    return rows[0]


def test_a_trace_over_twenty_tenants_overspends_nothing_and_the_books_agree():
    told = replay("--requests", "300", "--seconds", "4")
    total = row(told, "all")
    assert total[1] == "300" and "0 tenants" in told, told
    served = [int(cell.replace(",", "")) for cell in total[2:5]]
    refused = [int(cell.replace(",", "")) for cell in total[5:9]]
    assert all(served) and sum(refused) and sum(served) + sum(refused) == 300, told


def test_prompts_of_a_byte_a_token_overspend_nothing_where_bodies_are_not_held():
    replay("--requests", "300", "--seconds", "4", "--bytes-per-token", "1", "--streaming")


def test_of_a_thousand_requests_at_once_as_many_are_served_as_the_budget_is_worth():
    told = replay("--crowd")
    _, budget, spent, admitted, held, *_ = row(told, "dear")
    assert (spent, admitted, held) == (budget, "100", "900"), told
    _, budget, spent, admitted, held, *_ = row(told, "patient")
    assert int(spent.replace(",", "")) <= int(budget.replace(",", "")) and int(admitted) > 90 and held == "0", told


def test_a_flood_on_uneven_budgets_falls_back_before_they_are_spent_and_nobody_else_notices():
    told = run("--priorities", "--seconds", "3")
    alone, flooded = told.split("with the flood:")
    flooded, shared = flooded.split("with the flood, and a capacity of the compact tier:")
    for name in ("critical", "critical-top", "standard", "standard-top"):
        assert row(flooded, name)[2:8] == row(shared, name)[2:8] == row(alone, name)[2:8], told
    for name in ("flood-1", "flood-2", "flood-3", "flood-4"):
        asked, *served, by_budget, by_capacity = map(int, row(flooded, name)[2:8])
        assert all(served) and sum(served) == asked and by_budget == by_capacity == 0, told
        asked, *served, by_budget, by_capacity = map(int, row(shared, name)[2:8])
        assert served[-1] and by_capacity and sum(served) + by_capacity == asked and by_budget == 0, told
    # In line behind the flood, and before it.
    for name in ("critical", "standard"):
        p50 = [float(row(text, name)[-2]) for text in (flooded, shared)]
        assert p50[1] < p50[0] / 2, told


# Its exit status tells of times, too, which are no test's concern.
def test_a_provider_that_is_out_of_quota_refuses_no_application_that_comes_through_bursar():
    _, told = run_through("--pressure", "--requests", "200", "--seconds", "8", "--minute", "3")
    rows = [re.split(r"  +", line.strip()) for line in told.splitlines() if line.startswith(("critical tenants", "with"))]
    calls, default, standard, compact, limited, critical, lowered, refused = range(1, 9)
    alone, without, pressed, learned = [[each.replace(",", "") for each in row] for row in rows]
    assert alone[default] == alone[calls], told
    assert int(without[limited]) > 0 and int(without[refused]) > 20, told
    for row in (pressed, learned):
        assert row[limited] == row[critical] == "0" and int(row[refused]) * 5 < int(without[refused]), told
        assert int(row[default]) and int(row[standard]) and int(row[default]) + int(row[standard]) == int(row[calls]), told
    # What the provider says is left is kept for those who matter most.
    assert learned[lowered] == "0", told


# Elsewhere five requests at a time spent 663 tokens of a limit of 100.
def test_workers_that_race_for_one_tenants_record_lose_no_update():
    assert "No update was lost" in run("--hot", "4000")


# Made-up tenants come in floods, with ids that are long or odd.
def test_made_up_tenants_cost_bounded_memory_and_displace_nobody():
    told = run("--made-up", "20000")
    assert "kept their own accounts" in told and row(told, "20,000"), told
