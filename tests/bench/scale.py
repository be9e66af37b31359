"""What grows: tenants, workers, memory, the time until Envoy is ready."""

import json
import os
import tempfile
import time
from contextlib import contextmanager
from statistics import median

import variants
from stage import ROOT, Envoy, Load, cores, cpu_nanos   # which puts tests/e2e on the path
from workloads import BY_NAME, MIB

CONFIGURED = (10, 1_000, 100_000)
WORKERS = (1, 2, 4)
# on_configure runs in a VM that is thrown away, in the main thread's, and in each worker's.
CONFIGURES = 3
ASK = BY_NAME["2k"]


def measure(is_long, share=1.0, before=None):
    """`before`: the module of an earlier commit, which starts and is asked in the same way. The short form takes a twentieth of a million strangers, and fewer rounds."""
    core, load_core = cores()
    rounds, strangers, most = (7, 1_000_000, 100_000) if is_long else (3, 50_000, 2_000)
    requests = max(int(ASK.requests * share), 50)
    with Load(load_core) as load:
        return {
            "module": {name: path.stat().st_size for name, path in modules(before).items()},
            "asked": {name: asked(load, core, path, max(int(most * share), 20)) for name, path in modules(before).items() if name != "noop"},
            "configured": {str(count): row for count, row in configured(load, core, requests, rounds, max(int(most * share), 20)).items()},
            "strangers": strange(load, core, max(int(strangers * share), 100)),
            "workers": [workers(load, count, core, 4 * requests) for count in WORKERS],
            "memory": memory(load, core, requests),
            "start": starts(load.port, core, rounds, before),
        }


def modules(before=None):
    return {"bursar": ROOT / "target/bursar.wasm", "noop": variants.WASM32 / "noop.wasm"} | ({"before": before.resolve()} if before else {})


@contextmanager
def envoy(variant, load_port, core, concurrency=1):
    with tempfile.TemporaryDirectory(prefix="bursar-bench-") as folder:
        started = Envoy(folder, variant.document(load_port), core, concurrency)
        spawned = time.monotonic()   # its configuration was written before
        try:
            started.wait_ready()
            started.ready_seconds = time.monotonic() - spawned
            started.ready_cpu = cpu_nanos(started.process.pid) / 1e9
            yield started
            started.stop()   # fails if it died or the filter trapped
        finally:
            started.kill()


def with_tenants(count, unknown="reject", path=None):
    """bursar, or another module that gets the same configuration."""
    text = json.loads(variants.bursar_config(hold_headers=True, tenants=count))
    text["tenant"]["unknown"] = unknown
    return variants.Variant(f"tenants-{count}", "", "", lambda _: [
        variants.wasm("bursar", path or modules()["bursar"], held=True, configuration=json.dumps(text))])


# --- tenants -----------------------------------------------------------------


def configured(load, core, requests, rounds, most):
    """CPU microseconds of a request, where so many tenants are configured and `most` of them ask in turn: of their first, for
    which their metrics are made, and of later ones."""
    rows = {count: {"later": []} for count in CONFIGURED}
    with several(load, core, CONFIGURED) as envoys:
        for count, started in envoys.items():
            asking = min(count, most)
            rows[count].update(ready=started.ready_seconds, before=started.resident_bytes(), asking=asking)
            load.open(started.ports["llm"], ASK)
            rows[count]["first"] = spent(load, started, asking, tenants=asking)
            load.close()
        for _ in range(rounds):
            for count, started in envoys.items():
                rows[count]["later"].append(ask(load, started, max(requests, rows[count]["asking"]), rows[count]["asking"]))
        for count, started in envoys.items():
            rows[count]["after"] = started.resident_bytes()
    return rows


@contextmanager
def several(load, core, counts):
    if not counts:
        yield {}
        return
    with envoy(with_tenants(counts[0]), load.port, core) as first, several(load, core, counts[1:]) as rest:
        yield {counts[0]: first, **rest}


def asked(load, core, module, total):
    """Bytes that Envoy's memory grows by, where so many of the most tenants ask once each."""
    with envoy(with_tenants(CONFIGURED[-1], path=module), load.port, core) as started:
        ask(load, started, 1_000, 10)
        before = started.resident_bytes()
        load.open(started.ports["llm"], ASK)
        spent(load, started, total, tenants=total)
        load.close()
        return {"tenants": total, "grows": started.resident_bytes() - before}


def strange(load, core, total):
    """A request each of so many tenants that nobody configured: CPU of the first and of the last of ten parts, and memory."""
    with envoy(with_tenants(10, unknown={"plan": "gold"}), load.port, core) as started:
        ask(load, started, 1_000, 10)
        before = started.resident_bytes()
        part = total // 10
        cpu = []
        load.open(started.ports["llm"], ASK)
        for number in range(10):
            cpu.append(spent(load, started, part, tenants=total, first=number * part))
        load.close()
        return {"tenants": total, "cpu": cpu, "before": before, "after": started.resident_bytes()}


def ask(load, started, requests, tenants):
    load.open(started.ports["llm"], ASK)
    load.run(max(requests // 4, 1), tenants=tenants)
    cost = spent(load, started, requests, tenants)
    load.close()
    return cost


def spent(load, started, requests, tenants, first=0):
    before = cpu_nanos(started.process.pid)
    counts = load.run(requests, tenants=tenants, first=first)
    assert counts.get("status.200") == requests, counts
    return (cpu_nanos(started.process.pid) - before) / requests / 1000


# --- workers and memory ------------------------------------------------------


def workers(load, count, core, requests):
    """One tenant whose requests race for its record. More workers than one get all cores, and share them with the load."""
    where = core if count == 1 else set(os.sched_getaffinity(0))
    with envoy(variants.HELD, load.port, where, count) as started:
        load.open(started.ports["llm"], ASK)
        load.run(max(requests // 4, 1))
        variants.counted(started)
        conflicts = started.metric("bursar_state_conflicts_total")
        before = cpu_nanos(started.process.pid)
        counts = load.run(requests)
        cost = (cpu_nanos(started.process.pid) - before) / requests / 1000
        load.close()
        used, due = variants.counted(started), counts["status.200"]
        return {"workers": count, "cpu": cost, "throughput": 1e9 * requests / counts["wall"], "requests": requests,
                "served": due, "counted": used, "given_up": started.metric("bursar_state_given_up_total"),
                "conflicts": started.metric("bursar_state_conflicts_total") - conflicts}


def memory(load, core, requests):
    """Resident bytes after some requests of 2 KB, and after some of 1 MB, by variant and workers."""
    rows = []
    for variant in (variants.ALONE, variants.NOOP, variants.HELD):
        for count in WORKERS:
            with envoy(variant, load.port, core, count) as started:
                ask(load, started, requests, 0)
                small = started.resident_bytes()
                load.open(started.ports["llm"], BY_NAME["1m"])
                load.run(max(requests // 20, 8))
                load.close()
                rows.append({"variant": variant.name, "workers": count, "small": small, "large": started.resident_bytes()})
    return rows


# --- starting ----------------------------------------------------------------


def starts(port, core, rounds, before=None):
    """Seconds until Envoy is ready, and CPU seconds until then: without a filter, and with both modules and few or many tenants."""
    plans = [("none", 0, variants.ALONE)]
    for name, path in modules(before).items():
        plans += [(name, count, with_tenants(count, path=path)) for count in CONFIGURED]
    found = {}
    for _ in range(rounds):
        for name, count, variant in plans:
            with envoy(variant, port, core) as started:
                found.setdefault((name, count), []).append((started.ready_seconds, started.ready_cpu))
    return [{"module": name, "tenants": count, "seconds": [wall for wall, _ in times], "cpu": [cpu for _, cpu in times]}
            for (name, count), times in found.items()]


def configure_seconds(told, count):
    """CPU seconds of one on_configure: what so many tenants cost bursar's start over few, less what the same text costs a
    module that does not read it."""
    def cpu(name, tenants):
        return next(median(row["cpu"]) for row in told if (row["module"], row["tenants"]) == (name, tenants))
    def more(name):
        return cpu(name, count) - cpu(name, CONFIGURED[0])
    return (more("bursar") - more("noop")) / CONFIGURES


# --- the report --------------------------------------------------------------


def write(told, table):
    parts = ["## Scale", sizes(told), beside(told, table), tenants(told, table), crowd(told["workers"], table), megabytes(told["memory"], table), ready(told["start"], table)]
    return "\n\n".join(parts) + "\n"


def sizes(told):
    size = told["module"]["bursar"]
    return f"The module has {size / 1024:,.0f} KiB (≤ 1024: {met(size <= 1024 * 1024)}); the no-op filter by the SDK {told['module']['noop'] / 1024:,.0f}."


def beside(told, table):
    """The targets that are ratios to the module before."""
    if "before" not in told["module"]:
        return "Without the module before there is nothing to measure the targets of start and memory by."
    def of(name):
        return next(median(row["seconds"]) for row in told["start"] if (row["module"], row["tenants"]) == (name, CONFIGURED[0]))
    size = told["module"]["bursar"] / told["module"]["before"]
    start = of("bursar") / of("before") / size
    memory = told["asked"]["bursar"]["grows"] / max(told["asked"]["before"]["grows"], 1)
    rows = [["until Envoy is ready ÷ the same with the module before, ÷ the ratio of their sizes", "≤ 1.2", "≤ 1", f"{start:.2f} ({size:.2f} times the size): {met(start <= 1.2)}"],
            [f"memory that {told['asked']['bursar']['tenants']:,} tenants take who have asked ÷ the same before", "≤ 0.5", "≤ 0.3", f"{memory:.2f}: {met(memory <= 0.5)}"]]
    return table(["", "must", "goal", ""], rows)


def tenants(told, table):
    rows = [[f"{int(count):,} configured" + (f", {row['asking']:,} of them ask" if row["asking"] < int(count) else ""),
             f"{row['first']:.1f}", spread(row["later"]), f"{megabyte(row['before'])}, then {megabyte(row['after'])}"]
            for count, row in told["configured"].items()]
    row = told["strangers"]
    rows.append([f"{row['tenants']:,} made up", f"{row['cpu'][0]:.1f} (first tenth), {row['cpu'][-1]:.1f} (last)", "-",
                 f"{megabyte(row['before'])}, then {megabyte(row['after'])}"])
    return table(["tenants", "CPU µs of a tenant's first request", "of later ones", "Envoy's memory, MB"], rows)


def crowd(told, table):
    rows = [[str(row["workers"]), f"{row['throughput']:,.0f}", f"{row['cpu']:.1f}", f"{row['conflicts']:,.0f}",
             f"{row['conflicts'] / row['requests']:.4f}", f"{row['given_up']:,.0f}"] for row in told]
    return ("One tenant's requests of 2 KB. One worker has a core of its own; more of them share all cores with each other and with the load.\n\n"
            + table(["workers", "requests a second", "CPU µs a request", "steps lost and tried again", "a request", "given up"], rows))


def megabytes(told, table):
    def of(variant, workers, when):
        return next(row[when] for row in told if (row["variant"], row["workers"]) == (variant, workers))
    rows = []
    for variant in ("none", "noop", "held"):
        for when, says in (("small", "2 KB"), ("large", "1 MB, too")):
            numbers = [of(variant, workers, when) for workers in WORKERS]
            rows.append([{"none": "Envoy alone", "noop": "no-op filter", "held": "**bursar**"}[variant], says, *map(megabyte, numbers)])
    def slope(variant):
        return (of(variant, WORKERS[-1], "small") - of(variant, WORKERS[0], "small")) / (WORKERS[-1] - WORKERS[0])
    more = slope("held") - slope("none")
    return (table(["Envoy's memory, MB", "after requests of", *(f"{count} worker{'s' * (count > 1)}" for count in WORKERS)], rows)
            + f"\n\nA worker more takes {more / MIB:.2f} MB more with bursar than without a filter (≤ 2: {met(more <= 2 * MIB)}), "
            f"of which the no-op filter takes {(slope('noop') - slope('none')) / MIB:.2f}.")


def ready(told, table):
    names = {"none": "Envoy alone", "bursar": "**bursar**", "noop": "no-op filter, the same configuration", "before": "bursar before"}
    rows = [[names[row["module"]] + (f", {row['tenants']:,} tenants" if row["tenants"] else ""), spread(row["seconds"], 3), spread(row["cpu"], 3)] for row in told]
    few, many = (configure_seconds(told, count) for count in CONFIGURED[1:])
    return (table(["Envoy is ready after", "seconds", "CPU seconds"], rows)
            + f"\n\n`on_configure` takes {1000 * few:.0f} ms with {CONFIGURED[1]:,} tenants (≤ 20: {met(few <= 0.020)}) and {many:.2f} s with {CONFIGURED[2]:,} "
            f"(≤ 2: {met(many <= 2)}): CPU time that the start takes more than with {CONFIGURED[0]}, less the same of the no-op filter, by {CONFIGURES} runs "
            "(in a VM that is thrown away, in the main thread's, in the worker's).")


def met(holds):
    return "met" if holds else "**missed**"


def megabyte(size):
    return f"{size / MIB:.1f}"


def spread(values, digits=1):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"
