"""Spans of a real Envoy in a real OpenTelemetry Collector, each with its configuration as it is shipped.

    make otel
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

from opentelemetry.semconv import schemas  # noqa: E402
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes  # noqa: E402

from harness import config, otlp  # noqa: E402
from harness.rig import Rig  # noqa: E402
from harness.stores import free_port  # noqa: E402
from harness.wait import until  # noqa: E402

COLLECTOR = ROOT / "target/tools/otelcol/otelcol"
SHIPPED = ROOT / "envoy/otel-collector.yaml"
PLANS = {"gold": {"budget": config.budget(1_000), "low_water_mark": 0.95}}


class Collector:
    """A Collector that writes what it would export into a file."""

    def __init__(self, folder):
        self.port, self.written = free_port(), folder / "spans.json"
        document = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
        document["receivers"]["otlp"]["protocols"]["http"]["endpoint"] = f"127.0.0.1:{self.port}"
        document["exporters"] = {"file": {"path": str(self.written), "flush_interval": "50ms"}}
        document["service"]["pipelines"]["traces"]["exporters"] = ["file"]
        document["service"]["telemetry"] = {"metrics": {"level": "none"}}
        (folder / "collector.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        self.log = open(folder / "collector.log", "w+", encoding="utf-8")
        self.process = subprocess.Popen([str(COLLECTOR), f"--config={folder / 'collector.yaml'}"], stdout=self.log, stderr=self.log)
        until(self.is_ready, "the Collector to be ready", 60)

    def is_ready(self):
        said = Path(self.log.name).read_text(encoding="utf-8")
        assert self.process.poll() is None, f"the Collector ended:\n{said}"
        return "Everything is ready" in said

    def spans(self):
        """The finished spans with their attributes by name, by the request's id."""
        whole, _, _ = self.written.read_text(encoding="utf-8").rpartition("\n")
        found = {}
        for line in whole.splitlines():
            for resource in json.loads(line)["resourceSpans"]:
                for span in (span for scope in resource["scopeSpans"] for span in scope["spans"]):
                    span["attributes"] = {each["key"]: each["value"] for each in span["attributes"]}
                    span["resource"] = {each["key"]: each["value"] for each in resource["resource"]["attributes"]}
                    found[span["attributes"][otlp.REQUEST_ID]["stringValue"]] = span
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()


@pytest.fixture(scope="module")
def collector(tmp_path_factory):
    collector = Collector(tmp_path_factory.mktemp("collector"))
    yield collector
    collector.stop()


@pytest.fixture(scope="module")
def rig(collector, tmp_path_factory):
    rig = Rig(tmp_path_factory.mktemp("envoy"), config.plugin_config(PLANS, log_fields=otlp.SHIPPED["log_fields"]),
              change=otlp.traced_to(collector.port))
    try:
        yield rig.wait_ready()
    finally:
        rig.stop()


def span_of(collector, rig, response):
    request_id = rig.log(response)["request_id"]
    return until(lambda: collector.spans().get(request_id), f"the span of {response}")


def test_the_configuration_is_valid_as_it_is_shipped():
    done = subprocess.run([str(COLLECTOR), "validate", f"--config={SHIPPED}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_request_arrives_with_numbers_as_numbers(collector, rig):
    tenant = rig.tenant("gold")
    span = span_of(collector, rig, rig.chat(tenant, usage=(30, 12, 5)))
    attributes = span["attributes"]
    assert (span["name"], span["resource"]["service.name"]) == ("chat gpt-4o", {"stringValue": "llm-gateway"})
    assert {name: value for name, value in attributes.items() if name.startswith(("gen_ai.", "bursar."))} == {
        "gen_ai.operation.name": {"stringValue": "chat"}, "gen_ai.provider.name": {"stringValue": "openai"},
        "gen_ai.request.model": {"stringValue": "gpt-4o"}, "gen_ai.usage.input_tokens": {"intValue": "30"},
        "gen_ai.usage.cache_read.input_tokens": {"intValue": "5"}, "gen_ai.usage.output_tokens": {"intValue": "12"},
        "bursar.tenant": {"stringValue": tenant}, "bursar.tier": {"stringValue": "default"}, "bursar.requested_model": {"stringValue": "gpt-4o"},
        "bursar.decision": {"stringValue": "admit"}, "bursar.spend": {"intValue": "189"}, "bursar.settled_by": {"stringValue": "usage"}}


def test_a_refusal_arrives_without_numbers(collector, rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 1_000)
    attributes = span_of(collector, rig, rig.chat(tenant, usage=(1, 1)))["attributes"]
    assert attributes["bursar.reason"] == {"stringValue": "budget_exhausted"}
    assert not [name for name, value in attributes.items() if "intValue" in value]


def test_the_names_are_those_of_the_conventions_that_the_file_names():
    version = max(tuple(int(part) for part in schema.value.rsplit("/", 1)[1].split(".")) for schema in schemas.Schemas)
    assert f"semantic conventions {'.'.join(map(str, version))}" in (ROOT / "envoy/tracing.yaml").read_text(encoding="utf-8")
    names = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_") and isinstance(value, str)}
    ours = {tag["tag"] for tag in otlp.SHIPPED["tracing"]["custom_tags"] if tag["tag"].startswith("gen_ai.")}
    assert len(ours) == 6 and ours <= names
    assert {getattr(gen_ai_attributes.GenAiOperationNameValues, name).value for name in ("CHAT", "EMBEDDINGS", "TEXT_COMPLETION", "GENERATE_CONTENT")} == {
        "chat", "embeddings", "text_completion", "generate_content"}
