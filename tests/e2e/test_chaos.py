"""`make chaos`, a small part of it: that it sends, breaks, counts and says so."""

import subprocess
import sys

from harness.envoy import ROOT


def test_the_table_says_what_was_asked_paid_granted_and_overspent():
    words = ["--only", "store killed", "reset", "--proxies", "2", "--seconds", "2"]
    ran = subprocess.run([sys.executable, "tests/chaos", *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = [line.strip("|").split("|") for line in ran.stdout.splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line] for line in table]
    assert head == ["fault", "Envoys", "asked", "budget", "upstream paid", "store granted", "overspent", "allowed"]
    assert [row[0] for row in rows] == ["store killed and started again", "reset"], ran.stdout
    for _, proxies, _, limit, paid, granted, overspent, _ in rows:
        limit, paid, granted = (int(cell.replace(",", "")) for cell in (limit, paid, granted))
        assert (proxies, overspent) == ("2", "0")
        assert 0 < paid <= granted <= limit, ran.stdout
