"""`make bench`, with few requests: that every variant does its job, and the report says all of it. What it costs is not asked here."""

import importlib
import json
import os
import subprocess
import sys

import pytest

from harness.envoy import ROOT, WASM, render

BENCH = ROOT / "tests/bench"
USED = 508   # tokens that a request costs
BUFFERING = {"calls", "dom", "lua-find", "lua-gsub", "gateway"}   # more than small buffers hold
WORKLOADS = {"2k", "128k", "1m", "1m-32k", "sse", "paced", "first", "rate"}
VARIANTS = {"none", "again", "noop", "calls", "held", "passing", "dom", "lua-find", "lua-gsub", "local", "manager", "gateway"}
REWRITING = {"calls", "held", "passing", "dom", "lua-find", "lua-gsub", "gateway"}
COUNTING = {"held", "passing", "dom", "manager", "gateway"}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="make bench needs Linux")


def bench(folder, *words):
    env = dict(os.environ, ENVOY=render.envoy_binary())
    done = subprocess.run([sys.executable, str(BENCH), "--out", str(folder), *words], env=env, cwd=str(ROOT),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    told = done.stdout.decode()
    assert done.returncode == 0, told
    return told


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    bench(folder, "--rounds", "1", "--share", "0.02", "--seed", "1")
    return folder


@pytest.fixture(scope="module")
def told(folder):
    return json.loads((folder / "samples.json").read_text())


def test_every_variant_takes_its_turn_at_every_workload(told):
    taken = {(sample["variant"], sample["workload"]) for sample in told["samples"]}
    assert taken == {(variant, workload) for variant in VARIANTS for workload in WORKLOADS}


def test_every_request_is_answered_with_200_unless_small_buffers_are_in_the_way(told):
    for sample in told["samples"]:
        statuses = {name for name in sample["counts"] if name.startswith("status.")}
        if sample["workload"] == "1m-32k" and sample["variant"] in BUFFERING:
            assert statuses <= {"status.413", "status.0"} and "status.413" in statuses, sample
        else:
            assert statuses == {"status.200"}, sample


def test_every_variant_does_its_job(told):
    witnesses = {witness["variant"]: witness for witness in told["witnesses"]}
    assert witnesses.keys() == VARIANTS
    for name, witness in witnesses.items():
        # bursar gives the first request the model that it asks for, since nothing was spent yet.
        kept = 1 if name in ("held", "passing") else 0
        assert witness["rewritten"] == (witness["seen"] - kept if name in REWRITING else 0), witness
        assert witness["used"] == (witness["served"] * USED if name in COUNTING else None), witness


def test_every_sample_has_cpu_time(told):
    for sample in told["samples"]:
        assert sample["envoy"] > 0 and (sample["side"] > 0) == (sample["variant"] == "gateway"), sample


def test_the_report_has_every_row_and_the_picture_every_number(folder, told):
    report, picture = ((folder / name).read_text(encoding="utf-8") for name in ("report.md", "bench.svg"))
    variants, targets = modules("variants", "targets")
    for variant in variants.VARIANTS:
        assert report.count(f"| {variant.says}") >= 3, variant.says
    for target in targets.TARGETS:
        row = next(line for line in report.splitlines() if line.startswith(f"| {target.says} |"))
        # Each of the two variants by itself: without the module before there is nothing to measure by, unless the part is lost in the noise.
        verdicts = ["met", "missed"] + ["not measured"] * ("before" in target.says)
        assert sum(row.count(verdict) for verdict in verdicts) == 2, row
    assert picture.count("<rect") > 6 * 7 and picture.count(">413<") >= len(BUFFERING)   # a time may be 413, too
    assert f"commit {commit()}" in report


def test_the_module_of_an_earlier_commit_runs_in_the_same_rounds(tmp_path):
    bench(tmp_path, "--before", str(WASM), "--variants", "none,held,before,passing,before-passing", "--workloads", "2k",
          "--rounds", "1", "--share", "0.02")
    told = json.loads((tmp_path / "samples.json").read_text())
    assert {sample["variant"] for sample in told["samples"]} == {"none", "held", "before", "passing", "before-passing"}
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    section = report.split("## Beside the module before", 1)[1].split("##", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| **bursar**")]
    # What is left over Envoy alone may be nothing in so few requests, and then there is no multiple of it.
    assert len(rows) == 4 and all("×" in row or (row.count(" - ") == 1 and "its part" in row) for row in rows), section


def test_what_is_lost_in_the_noise_is_a_target_missed_and_said():
    targets, figures, rounds = modules("targets", "figures", "rounds")
    one = next(one for one in targets.TARGETS if one.says == "128 KB: cheaper than the DOM way")
    figures = figures.Figures([rounds.Sample(0, 0, variant, "128k", 10, cpu, 0, 0, False, {"status.200": 10})
                               for variant, cpu in (("none", 500), ("held", 499), ("dom", 900))])
    assert one.verdict(one.value(figures, "held")) == "**missed**: the module's part is lost in the noise"
    assert one.value(figures, "passing") is None and one.verdict(None) == "not measured"


def modules(*names):
    sys.path.insert(0, str(BENCH))
    try:
        return [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(BENCH))


def commit():
    told = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return told.stdout.strip()
