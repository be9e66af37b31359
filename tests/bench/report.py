"""The report in Markdown."""

import os
import subprocess
import time

import picture
import scale
import variants as known
from figures import Figures
from rounds import Sample
from stage import ROOT   # which puts tests/e2e on the path
from harness.envoy import render
from targets import TARGETS
from workloads import EVENTS, USED

CPU = "CPU microseconds a request, of Envoy and of the process beside it where there is one"


def write(folder, told, variants, workloads):
    """report.md and bench.svg, or scale.md; what the Markdown says."""
    about = f"{told['about']}, `{told['command']}`"
    if "samples" in told:
        samples = [Sample(**sample) for sample in told["samples"]]
        figures = Figures(samples)
        about += f": {sets(samples)}"
        parts = [targets_table(figures, variants), "![CPU of a request](bench.svg)", extra_table(figures, variants, workloads),
                 before_table(figures, variants, workloads), throughput_table(figures, variants, workloads), latency_table(figures, variants, workloads),
                 jobs(told["witnesses"], variants), disturbances(samples)]
        (folder / "bench.svg").write_text(picture.draw(figures, variants, about.replace("`", "")), encoding="utf-8")
    else:
        parts = []
    if "scale" in told:
        parts.append(scale.write(told["scale"], table))
    report = "\n\n".join([f"# make bench\n\n{about}.", *(part for part in parts if part)]) + "\n"
    (folder / ("report.md" if "samples" in told else "scale.md")).write_text(report, encoding="utf-8")
    return report


def sets(samples):
    rounds = len({sample.round for sample in samples})
    generations = len({sample.generation for sample in samples})
    return f"{rounds} round{'s' * (rounds > 1)} by {generations} set{'s' * (generations > 1)} of processes"


def machine():
    """When, where and what."""
    return (f"{time.strftime('%Y-%m-%d', time.gmtime())}, {os.cpu_count()} cores ({processor()}), Envoy {render.envoy_version()} "
            f"`--concurrency 1`, commit {commit()}")


def processor():
    with open("/proc/cpuinfo") as told:
        return next((line.split(":", 1)[1].strip() for line in told if line.startswith("model name")), "unknown")


def commit():
    def git(*words):
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout.strip()
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" with changes" if git("status", "--porcelain") else "")


def targets_table(figures, variants):
    modes = [variant for variant in variants if variant.name in ("held", "passing")]
    if not modes:
        return ""
    rows = []
    for target in TARGETS:
        row = [target.says, *target.bounds()]
        for mode in modes:
            value = target.value(figures, mode.name)
            number = "" if value is None or isinstance(value, str) else f"{value:.3g}{target.unit}: "
            row.append(number + target.verdict(value))
        rows.append(row)
    return "## Targets\n\n" + table(["", "must", "goal", *(mode.says for mode in modes)], rows)


def extra_table(figures, variants, workloads):
    rows = []
    for variant in variants:
        if variant.name == figures.base:
            cells = [cell(figures.absolute(variant.name, workload.name)) for workload in workloads]
            rows.append([variant.says + " (absolute)", *cells])
        else:
            cells = [cell(figures.extra(variant.name, workload.name)) for workload in workloads]
            rows.append([variant.says, *cells])
    return (f"## What a request costs\n\n{CPU}, over Envoy alone in the same round: median (quartiles).\n\n"
            + table(["", *(workload.says for workload in workloads)], rows))


def before_table(figures, variants, workloads):
    """What each mode costs as a multiple of what it cost before, of the whole request and of bursar's part of it."""
    names = {variant.name for variant in variants}
    rows = []
    for now, before in known.BEFORE:
        if {now, before} <= names:
            says = known.BY_NAME[now].says
            whole = [figures.times(now, before, workload.name) for workload in workloads]
            rows.append([f"{says}: Envoy and all", *(times(figure) for figure in whole)])
            part = [figures.ratio(now, before, workload.name) for workload in workloads]
            rows.append([f"{says}: its part", *("-" if ratio is None else f"{ratio:.2f}×" for ratio in part)])
    return ("## Beside the module before\n\nCPU as a multiple of that of the module before. Envoy and all: each round by itself, median "
            "(quartiles). Bursar's part, over Envoy alone: of medians.\n\n" + table(["", *(workload.says for workload in workloads)], rows)
            if rows else "")


def times(figure):
    return f"{figure.middle:.3f}× ({figure.low:.3f}–{figure.high:.3f})" + "†" * figure.all_disturbed if figure else "-"


def throughput_table(figures, variants, workloads):
    closed = [workload for workload in workloads if not workload.rate and workload.answer != "paced"]
    rows = [[variant.says, *(cell(figures.absolute(variant.name, workload.name, lambda sample: sample.throughput()), whole=True)
                             for workload in closed)] for variant in variants]
    return "## Requests a second, of one worker on one core\n\n" + table(["", *(workload.says for workload in closed)], rows) if closed else ""


def latency_table(figures, variants, workloads):
    rated = [workload for workload in workloads if workload.rate]
    paced = [workload for workload in workloads if workload.answer == "paced"]
    def columns():
        for workload in rated:
            for part in ("p50", "p95", "p99"):
                yield f"{workload.says}: {part}", workload, f"last.{part}"
        for workload in paced:
            yield f"{workload.says}: first byte, p50", workload, "first.p50"
    wanted = list(columns())
    rows = [[variant.says, *(cell(figures.absolute(variant.name, workload.name, lambda sample, name=name: sample.counts[name] / 1000), whole=True)
                             for _, workload, name in wanted)] for variant in variants]
    return "## Latency\n\nMicroseconds as the client sees them.\n\n" + table(["", *(says for says, _, _ in wanted)], rows) if wanted else ""


def jobs(witnesses, variants):
    """What the variants did, as the upstream and their own counters saw it."""
    rows = []
    for variant in variants:
        mine = [each for each in witnesses if each["variant"] == variant.name]
        served, seen, rewritten = (sum(each[name] for each in mine) for name in ("served", "seen", "rewritten"))
        used = sum(each["used"] or 0 for each in mine)
        rows.append([variant.says, variant.does, f"{served:,}", f"{rewritten:,} of {seen:,}" if variant.rewrites else "-",
                     f"{used:,.0f} of {served * USED:,}" if variant.used else "-"])
    return "## What each of them did\n\n" + table(["", "", "served", "model exchanged", "tokens counted"], rows)


def disturbances(samples):
    dropped = sum(sample.disturbed for sample in samples)
    return (f"{dropped} of {len(samples)} samples were disturbed: others had more than 5 % (and 30 ms) of one of the two cores twice. They are left "
            "out, but where fewer than half are left all are taken, and the figure is marked †. "
            f"A stream is {EVENTS} events.")


def cell(figure, whole=False):
    if figure.failed:
        return ", ".join("cut" if status == 0 else str(status) for status in sorted(figure.failed))
    if not figure.count:
        return "-"
    def number(value):
        return f"{value:,.0f}" if whole or abs(value) >= 100 else f"{value:.1f}"
    return f"{number(figure.middle)} ({number(figure.low)}–{number(figure.high)})" + "†" * figure.all_disturbed


def table(head, rows):
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, *rows]]
    return "\n".join([lines[0], "|---" + "|--:" * (len(head) - 1) + "|", *lines[1:]])
