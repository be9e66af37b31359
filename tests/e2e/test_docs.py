"""README.md and docs/: every command and every block is run, or is listed here with the reason why not; every link leads somewhere."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness import http
from harness.envoy import ROOT, render
from harness.rig import CHAT, chat_body
from harness.wait import until

import sample  # noqa: E402  (harness.envoy puts envoy/ on the path)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
LONGEST_LINE, LONGEST_CELL, LONGEST_README = 240, 220, 200

# Made without running its recipes: so it is a target, and all that it needs has a rule.
MADE_DRY = {
    "make run": "as `served` runs it",
    "make test": "it runs this",
    "make wasm": "the module of the other tests must not change under them",
    "make schema": "it would mend what a test is to find",
    "make istio": "it needs root and builds Istio",
    "make image": "`make test-image` runs it",
    "make test-image": "it needs Go and builds the module again",
    "make otel": "it needs Go and builds a Collector",
    "make matrix": "it runs all of these tests five times",
    "make upgrade": "it builds another commit's module",
}
NOT_RUN = {
    r"kubectl ": "it needs a cluster; what it applies goes through a real istiod in `make istio`",
    r"make publish |cosign ": "it needs Go, a registry and a key; `make test-image` has them",
    r"make budgets ": "it needs a store; `test_budgets.py` has one",
    r"istioctl ": "`make istio` has it, and runs this very command",
    r"go install ": "it needs Go and the network",
    r"UPSTREAM=https://api\.openai\.com make run": "it needs an API key",
    r"UPSTREAM=http://127\.0\.0\.1:11434 ": "it needs Ollama",
    r"python3 envoy/standin\.py ": "`served` runs it",
}


@dataclass
class Block:
    page: Path
    language: str
    text: str

    def __str__(self):
        return f"{self.page.name}: {self.text.splitlines()[0][:60]}"


def blocks(*languages):
    found = []
    for page in PAGES:
        for indent, language, text in re.findall(r"^( *)```(\w+)\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.M | re.S):
            if language in languages:
                found.append(Block(page, language, textwrap.dedent(text)))
    return found


@dataclass
class Command:
    page: Path
    line: str
    output: list

    def __str__(self):
        return f"{self.page.name}: {self.line[:60]}"


def commands():
    found = []
    for block in blocks("console"):
        is_continued = False
        for line in block.text.splitlines():
            if is_continued:
                found[-1].line += "\n" + line
            elif line.startswith("$ "):
                found.append(Command(block.page, re.sub(r" {2,}# .*", "", line[2:]), []))
            else:
                found[-1].output.append(line)
                continue
            is_continued = line.endswith("\\")
    return found


def reason_not_to_run(command):
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command.line)), None)


# --- the commands ------------------------------------------------------------


class Served:
    """`make run`, after its tour."""

    def __init__(self, folder):
        self.folder = folder
        env = dict(os.environ, PORT="0", ADMIN_PORT="0", REPORT_PORT="0", STANDIN_PORT="0", ENVOY=render.envoy_binary(), RUN_DIR=str(folder))
        for name in ("UPSTREAM", "CONFIG", "TOUR_ONLY"):
            env.pop(name, None)
        self.out = folder / "run.log"
        with self.out.open("wb") as out:
            self.process = subprocess.Popen([sys.executable, str(ROOT / "envoy/run.py")], env=env, cwd=str(ROOT), stdout=out,
                                            stderr=subprocess.STDOUT)
        until(lambda: "serving until Ctrl-C" in self.said() or self.process.poll() is not None, "the tour", 120)
        assert self.process.poll() is None, self.said()
        self.port = re.search(r"own to http://127\.0\.0\.1:(\d+)", self.said())[1]
        self.admin_port = re.search(r"http://127\.0\.0\.1:(\d+)/stats", self.said())[1]
        self.report_port = re.search(r"what is left http://127\.0\.0\.1:(\d+)/", self.said())[1]

    def said(self):
        return self.out.read_text(encoding="utf-8")

    def here(self, text):
        """With the ports and folders of this run in the place of the documented ones."""
        text = text.replace("127.0.0.1:10000", f"127.0.0.1:{self.port}").replace("127.0.0.1:9901", f"127.0.0.1:{self.admin_port}")
        text = text.replace("127.0.0.1:9902", f"127.0.0.1:{self.report_port}")
        return text.replace("target/run", str(self.folder))

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(30) == 0, self.said()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    served = Served(tmp_path_factory.mktemp("run"))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def my_json(tmp_path_factory):
    """The file that docs/local.md has its reader write."""
    path = tmp_path_factory.mktemp("own") / "my.json"
    text, = [block.text for block in blocks("json") if block.page.name == "local.md"]
    path.write_text(text, encoding="utf-8")
    return path


def run(command, **more):
    done = subprocess.run(["bash", "-c", command], cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, **more)
    text = done.stdout.decode()
    assert done.returncode == 0, f"{command}\n{text}"
    return text


def shape(line):
    """A line without the figures that differ from run to run."""
    return re.sub(r"\d[\d.]*(ms|[hms])?", "0", re.sub(r"(\d+h)?(\d+m)?\d[\d.]*m?s", "0", line.strip()))


@pytest.mark.parametrize("command", commands(), ids=str)
def test_a_command_does_what_its_page_shows(command, request):
    line = command.line
    if reason_not_to_run(command):
        pytest.skip(reason_not_to_run(command))
    if line in MADE_DRY:
        run(f"make -n {line.removeprefix('make ')}")
        return
    if line.startswith("func-e run "):
        run(line.replace("func-e run", f"{render.envoy_binary()} --mode validate"))
        return
    if "my.json" in line:
        path = request.getfixturevalue("my_json")
        own = dict(os.environ, PORT="0", ADMIN_PORT="0", REPORT_PORT="0", STANDIN_PORT="0", TOUR_ONLY="1",
                   ENVOY=render.envoy_binary(), RUN_DIR=str(path.parent))
        if "target/run" in line:
            line = request.getfixturevalue("served").here(line)
        line = line.replace("make run", f"{sys.executable} envoy/run.py").replace("my.json", str(path))
        said = run(line, env=own).replace(str(path), "my.json")
    else:
        said = run(request.getfixturevalue("served").here(line))
        assert said.strip(), "it prints nothing"
    shapes = [shape(each) for each in said.splitlines()]
    for expected in command.output:
        assert shape(expected) in shapes, f"{expected!r} is not in\n{said}"


def test_every_reason_not_to_run_a_command_is_needed():
    lines = [command.line for command in commands()]
    assert [each for each in MADE_DRY if each not in lines] == []
    assert [each for each in NOT_RUN if not any(re.match(each, line) for line in lines)] == []


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_a_program_runs(block, served):
    done = subprocess.run([sys.executable, "-c", served.here(block.text)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == 0 and done.stdout.strip(), done.stdout.decode()


# --- configurations ----------------------------------------------------------


@pytest.fixture(scope="module")
def proxy(start_rig):
    """An Envoy whose plugin configuration is exchanged for each block; its namespace is one that a page names."""
    return start_rig(json.loads(blocks("json")[0].text), node_metadata={"NAMESPACE": "team-a"}, lds=True)


def request_of(config):
    """Headers and model of a request that the configuration means to serve; None if only mTLS or a JWT could name its tenant."""
    header = sample.tenant_header(config)
    has_property = "property" in json.dumps(config.get("tenant", {}))
    if header is None and not has_property:
        return None
    host = next((each for each in config.get("hosts", []) if "*" not in each), "llm.test")
    tenant = [] if header is None else [(header, next(iter(config.get("tenants", ["anyone"]))))]
    shown = [source["header"] for each in config.get("subjects", {}).values() for source in each["from"] if "header" in source]
    subjects = [(header, "someone") for header in shown]
    return [("host", host), ("content-type", "application/json"), *tenant, *subjects], sample.first_model(config)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_a_configuration_serves(block, proxy):
    config = json.loads(block.text)
    wanted = request_of(config)
    if wanted is None:
        pytest.skip("its tenants are named by mTLS or a JWT: test_identity.py has those")
    proxy.envoy.update(block.text)
    headers, model = wanted
    body = chat_body(model=model)
    with proxy.connect() as connection:
        connection.send(http.head("POST", CHAT, [*headers, ("content-length", len(body))]), body)
        answer = connection.read()
    assert (answer.status, answer.header("x-bursar-decision")) == (200, "admit"), answer


def test_the_reference_is_that_of_the_schema():
    done = subprocess.run([sys.executable, str(ROOT / "docs/reference.py"), "--check"], stderr=subprocess.PIPE)
    assert done.returncode == 0, done.stderr.decode()


# --- what the pages say of metrics and words ---------------------------------


def source(path):
    return (ROOT / "src" / path).read_text(encoding="utf-8")


def metrics():
    return set(re.findall(r'"(bursar_\w+)"', source("report/metrics.rs")))


def log_fields():
    return set(re.findall(r'^    [A-Z]\w+ "(\w+)",$', source("published/log_field.rs"), re.M))


def page(name):
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("block", blocks("promql", "yaml"), ids=str)
def test_queries_name_metrics_that_are_there(block, served):
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
    there = run(served.here("curl -s 'http://127.0.0.1:9901/stats/prometheus'"))
    for name in re.findall(r"\b(?:bursar|envoy)_[a-z_]+\b", re.sub(r"\{[^}]*\}", "", block.text)):
        assert name in metrics() or f"# TYPE {name} " in there, name


def test_every_metric_and_every_reason_is_explained():
    operations = page("operations.md")
    reasons = re.findall(r'Self::.* => "(\w+)"', source("policy/decision.rs"))
    reasons += re.findall(r'Self::\w+.* => "(\w+)",', source("report/refusal.rs").split("pub fn is_throttle")[0])
    assert len(reasons) > 20
    assert [word for word in [*metrics(), *reasons] if f"`{word}`" not in operations] == []
    named = set(re.findall(r"\bbursar_\w+_total\b", " ".join(each.read_text(encoding="utf-8") for each in PAGES)))
    assert named - metrics() - {f"bursar_{field}" for field in log_fields()} == set()


def test_every_field_of_the_access_log_is_named():
    assert log_fields() and [field for field in log_fields() if f"`{field}`" not in page("operations.md")] == []


def test_what_make_is_asked_for_is_there():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {name for each in PAGES for name in re.findall(r"`(?:\w+=\S+ )*make ([a-z][a-z0-9-]*)", each.read_text(encoding="utf-8"))}
    assert named and named - targets == set()


# --- form --------------------------------------------------------------------


def slug(heading):
    """GitHub's anchor of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(path):
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.M)}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_lines_and_cells_are_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > LONGEST_LINE] == []
    rows = [line for line in lines if line.startswith("|")]
    assert [cell for row in rows for cell in re.split(r"(?<!\\)\|", row) if len(cell) > LONGEST_CELL] == []
    if path.name == "README.md":
        assert len(lines) <= LONGEST_README


def test_the_shipped_access_log_and_the_page_agree():
    log = render.hcm(render.load())["access_log"][0]["typed_config"]["log_format"]["json_format"]
    ours = [value for value in log.values() if "wasm.bursar" in value]
    assert len(ours) == 1 and f"`{ours[0]}`" in page("operations.md")
