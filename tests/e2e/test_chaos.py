"""`make chaos`, with all its faults for a moment each: that it sends, breaks, counts and says so, and that nothing is overspent."""

import subprocess
import sys

import pytest

from harness import clocks
from harness.envoy import ROOT

OF_A_BUDGET = [
    "nothing", "store frozen", "store killed and started again", "store slow by 200 ms", "answers cut half-way", "script forgotten, ten times",
    "wrong password", "-READONLY", "-OOM", "each Envoy killed and started again", "each Envoy drained and replaced",
    "clocks an hour ahead and an hour behind", "configured anew, five times", "raised by a half, and lowered again", "reset"]
# What a store has lost may be overspent.
WITH_LOSS = ["store wiped", "failed over, the last second lost"]
OTHERS = {"traps": "traps: a worker of each Envoy, ten times", "windows": "windows of 4 s end: the fullest"}
WITH_CLOCKS = ["a month ends: both windows"]
OF_A_BUCKET = ["bucket: nothing", "bucket: store frozen", "bucket: each Envoy killed and started again"]


def number(cell):
    return int(cell.replace(",", ""))


@pytest.mark.parametrize("faults", [
    OF_A_BUDGET, WITH_LOSS, list(OTHERS), OF_A_BUCKET,
    pytest.param(WITH_CLOCKS, marks=pytest.mark.skipif(clocks.COMPILER is None, reason="there is no C compiler to make another clock with"))],
    ids=["budget", "loss", "others", "bucket", "clocks"])
def test_the_table_says_what_was_asked_paid_granted_and_overspent(faults):
    # An argument that begins with a dash would be an option.
    words = [f"--only={fault}" for fault in faults]
    ran = subprocess.run([sys.executable, "tests/chaos", *words, "--proxies", "2", "--seconds", "1", "--window", "4"], cwd=ROOT,
                         capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = [line.strip("|").split("|") for line in ran.stdout.splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line] for line in table]
    assert head == ["fault", "Envoys", "asked", "budget", "upstream paid", "store granted", "overspent", "allowed"]
    assert [row[0] for row in rows] == [OTHERS.get(fault, fault) for fault in faults], ran.stdout
    for fault, proxies, _, limit, paid, granted, overspent, _ in rows:
        assert proxies == "2" and 0 < number(paid), ran.stdout
        if fault not in WITH_LOSS:
            assert overspent == "0"
        if granted and fault not in WITH_LOSS:
            assert number(paid) <= number(granted) <= number(limit), ran.stdout
