"""The processes of a benchmark: the load with its upstream, Envoys and what stands beside them, each on its core."""

import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests/e2e"))

from harness import envoy as harness  # noqa: E402

BUILT = ROOT / "target/bench/cargo"
TICK = os.sysconf("SC_CLK_TCK")


def cores():
    """(Envoy's, the load's): the last two that this process may use, or the only one twice."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[-2], mine[-1]) if len(mine) > 1 else (mine[0], mine[0])


def pinned(core):
    """For the child of a fork: all of its threads stay on this core."""
    return lambda: os.sched_setaffinity(0, {core})


def cpu_nanos(pid):
    """CPU time of all threads of a process, those that have ended too: Linux's clock of another process (posix-timers,
    `MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)`)."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def busy_nanos(core):
    """How long a core has not been idle, in ticks of the kernel's: not exact."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *numbers = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, numbers[:8])
            return (user + nice + system + irq + softirq + steal) * 1_000_000_000 // TICK
    raise KeyError(core)


class Side:
    """A program of ours on one core. It tells its port first, then a line for a line, and ends with its input."""

    def __init__(self, name, core):
        self._process = subprocess.Popen([str(BUILT / "release" / name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         text=True, preexec_fn=pinned(core))
        self.pid = self._process.pid
        self.port = int(self._process.stdout.readline())

    def cpu(self):
        return cpu_nanos(self.pid)

    def ask(self, line="tell"):
        """The numbers that it answers, by name."""
        return {name: int(number) for name, number in (word.split("=") for word in self.tell(line).split())}

    def tell(self, line):
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise AssertionError(f"{self._process.args[0]} ended at: {line}")
        return answer.strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Load(Side):
    """The load generator: `open` connections, `run` requests."""

    def __init__(self, core):
        super().__init__("load", core)
        self._folder = tempfile.TemporaryDirectory(prefix="bursar-bench-")

    def open(self, port, workload):
        head, body = (Path(self._folder.name) / f"{workload.name}.{part}" for part in ("head", "body"))
        if not body.exists():
            head.write_bytes(workload.head())
            body.write_bytes(workload.body())
        self.tell(f"open {port} {workload.connections} {head} {body}")

    def run(self, requests, rate=0, tenants=0, first=0):
        """What it came to, by name: see load/src/tally.rs."""
        return self.ask(f"run {requests} {rate} {tenants} {first}")

    def close(self):
        self.tell("close")

    def __exit__(self, *error):
        super().__exit__(*error)
        self._folder.cleanup()


class Envoy(harness.Envoy):
    """An Envoy that stays on one core."""

    def __init__(self, folder, doc, core, concurrency=1):
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, core if isinstance(core, set) else {core})   # a child inherits it
        try:
            super().__init__(folder, doc, concurrency=concurrency)
        finally:
            os.sched_setaffinity(0, before)

    def _is_ready(self):
        if not super()._is_ready():
            return False
        self.ports = listener_ports(self)
        return True


def listener_ports(envoy):
    statuses = json.loads(envoy.admin("/listeners?format=json"))["listener_statuses"]
    return {status["name"]: status["local_address"]["socket_address"]["port_value"] for status in statuses}


class Stage:
    """`with Stage(variants) as stage`: the load, and an Envoy for each variant, all of them waiting."""

    def __init__(self, variants):
        self.variants = variants
        self.envoy_core, self.load_core = cores()

    def __enter__(self):
        with ExitStack() as stack:
            self.load = stack.enter_context(Load(self.load_core))
            self.sides = {variant.name: stack.enter_context(variant.side(self.load_core)) for variant in self.variants if variant.side}
            self.envoys = {}
            for variant in self.variants:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bursar-bench-"))
                side = self.sides.get(variant.name)
                doc = variant.document(self.load.port, side.port if side else None)
                envoy = Envoy(folder, doc, self.envoy_core)
                stack.push(lambda kind, *_, envoy=envoy: envoy.kill() if kind else envoy.stop())
                self.envoys[variant.name] = envoy
            for envoy in self.envoys.values():
                envoy.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def port(self, variant, workload):
        return self.envoys[variant.name].ports["small" if workload.small else "llm"]

    def cpu(self, variant):
        """(the Envoy's, that of the process beside it) in nanoseconds."""
        side = self.sides.get(variant.name)
        return cpu_nanos(self.envoys[variant.name].process.pid), side.cpu() if side else 0

