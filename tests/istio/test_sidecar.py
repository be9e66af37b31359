"""The YAML that is shipped, as it is, through a real istiod into the Envoy beside pilot-agent."""

import contextlib
import http.server
import json
import re
import subprocess
import threading

import lab
import pytest
import yaml
from lab import ask
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@pytest.fixture(scope="module")
def mesh():
    with lab.Mesh() as mesh:
        mesh.start(lab.other_host(), *lab.load(lab.EGRESS), lab.shipped_filter())
        mesh.add_pod()
        mesh.start_proxy(annotations={"sidecar.istio.io/extraStatTags": stat_tags()})
        yield mesh
        mesh.processes.check()


def stat_tags():
    """The annotation as the file's comment gives it."""
    return re.search(r"extraStatTags: (\S+)", lab.ENVOY_FILTER.read_text(encoding="utf-8"))[1]


def with_configuration(configuration):
    document = lab.shipped_filter()
    lab.plugin(document)["configuration"]["value"] = json.dumps(configuration)
    return document


@pytest.mark.parametrize("path", sorted((lab.ROOT / "istio").glob("*.yaml")), ids=lambda path: path.name)
def test_istioctl_takes_every_file_that_is_shipped(path):
    said = subprocess.run([lab.BIN / "istioctl", "validate", "-f", path], capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr


def test_the_proxy_takes_all_that_istiod_sends(mesh):
    assert lab.rejected() == 0
    assert mesh.refusals() == []
    chains = [names for listener, names in lab.http_filters() if listener == "0.0.0.0_80"]
    assert chains and all("bursar" in names and names.index("bursar") < len(names) - 1 for names in chains), chains


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_a_request_to_the_llm_is_admitted_and_encrypted_by_the_sidecar(mesh, stream):
    answer = ask("acme", stream=stream)
    assert (answer.status, answer.decision, answer.model) == (200, "admit", "gpt-4o"), answer
    assert "sni api.openai.com" in mesh.log("tls")


def test_who_has_no_tenant_or_an_unknown_one_is_refused(mesh):
    assert (ask(None).status, ask(None).code) == (401, "tenant_required")
    assert (ask("nobody").status, ask("nobody").code) == (403, "tenant_unknown")


def test_another_host_on_the_same_port_is_left_alone(mesh):
    answer = ask(None, host="other.example")
    assert (answer.status, answer.decision) == (200, None), answer


def test_a_long_body_passes(mesh):
    assert ask("acme", text="x" * 30_000).status == 200


def test_an_empty_bucket_is_told_with_its_wait(mesh):
    answers = [ask("initech", text="x" * 600) for _ in range(10)]
    refused = [answer for answer in answers if answer.status == 429]
    assert refused and refused[0].headers["retry-after"] == "1"
    assert 0 < int(refused[0].headers["retry-after-ms"]) <= 1_000
    assert refused[0].headers["x-bursar-reason"] == "bucket_empty"


def test_a_budget_goes_down_the_ladder_and_a_larger_one_counts_at_once(mesh):
    seen, refusal = lab.spend_all("globex")
    assert seen == lab.WAY_DOWN
    assert (refusal.status, refusal.code) == (429, "insufficient_quota")
    lab.apply(with_configuration(lab.more_budget(lab.plugin_configuration())))
    served = lab.until(lambda: (answer := ask("globex")).status == 200 and answer, "the larger budget")
    assert 35_000 < int(served.headers["x-ratelimit-remaining-tokens"]) < 37_000, "what was spent stays spent"

    # A wrong one is refused by name, and what was in force stays.
    before = lab.rejected()
    lab.apply(with_configuration(lab.misspelt(lab.plugin_configuration())))
    lab.until(lambda: lab.rejected() > before, "the refusal")
    lab.until(mesh.refusals, "istiod to log it")
    assert "plans.small.budget" in mesh.log("agent")
    assert ask("globex").status == 200

    lab.apply(lab.shipped_filter())
    refusal = lab.until(lambda: (answer := ask("globex", max_tokens=200)).status == 429 and answer, "the first budget again")
    assert refusal.code == "insufficient_quota"


def test_metrics_have_labels_and_the_access_log_has_the_tenant(mesh):
    ask("acme")
    metrics = lab.admin("/stats/prometheus")
    assert re.search(r'^bursar_requests_total\{tenant="acme",tier="default",decision="admit"\} [1-9]', metrics, re.M)
    lab.until(lambda: 'api.openai.com 200 via_upstream bursar={"tenant":"acme"' in mesh.log("agent"), "the access log")


def test_the_telemetry_that_is_shipped_logs_what_bursar_says(mesh):
    telemetry = lab.load(lab.ROOT / "istio/telemetry.yaml")
    lab.apply(*telemetry)

    def logged():
        ask("acme")
        lines = [json.loads(line) for line in mesh.log("agent").splitlines() if line.startswith('{"') and "requested_model" in line]
        return [line for line in lines if json.loads(line["bursar"])["tenant"] == "acme"]

    (entry, *_) = lab.until(logged, "an entry in the form of istio/mesh-config.yaml")
    said = json.loads(entry["bursar"])
    assert (entry["status"], said["decision"], said["model"]) == (200, "admit", "gpt-4o"), entry
    for document in telemetry:
        lab.delete(document)


@contextlib.contextmanager
def listening(port):
    """The spans that come by OTLP over HTTP, as (name, tags)."""
    spans = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            for resource in ExportTraceServiceRequest.FromString(b"".join(self.chunks())).resource_spans:
                spans.extend((span.name, {each.key: each.value.string_value for each in span.attributes})
                             for scope in resource.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def chunks(self):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield spans
    finally:
        server.shutdown()
        server.server_close()


def test_the_traces_that_are_shipped_tell_of_the_llm_and_of_nothing_else(mesh):
    fields = yaml.safe_load((lab.ROOT / "envoy/tracing.yaml").read_text(encoding="utf-8"))["log_fields"]
    documents = [lab.collector(26700), *lab.load(lab.ROOT / "istio/tracing.yaml")]
    with listening(26700) as spans:
        lab.apply(with_configuration(lab.changed(lab.plugin_configuration(), lambda c: c.update(log_fields=fields))), *documents)

        def traced():
            ask("acme")
            return [tags for _, tags in spans if tags.get("gen_ai.usage.output_tokens")]

        (tags, *_) = lab.until(traced, "a span with the answer's tokens")
        told = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o",
                "bursar.tenant": "acme", "bursar.decision": "admit"}
        assert told.items() <= tags.items()
        assert tags["http.url"] == "http://api.openai.com/v1/chat/completions"
        ask(None, host="other.example")
        (tags, *_) = lab.until(lambda: [tags for _, tags in spans if tags["http.url"].startswith("http://other.example/")], "the span of another host")
        assert not [name for name in tags if name.startswith(("gen_ai.", "bursar."))]
    for document in documents:
        lab.delete(document)
    lab.apply(lab.shipped_filter())


def test_https_goes_round_until_only_the_registry_is_open(mesh):
    assert lab.over_https() == 200, "unmetered, since the proxy cannot read it"
    closed = lab.load(lab.ROOT / "istio/registry-only.yaml")
    lab.apply(*closed)
    lab.until(lambda: lab.over_https() is None, "the way round to be closed")
    assert ask("acme").decision == "admit"
    assert ask(None, host="other.example").status == 200, "a host that the mesh knows"
    for document in closed:
        lab.delete(document)
    lab.until(lambda: lab.over_https() == 200, "the way round to be open again")


def test_a_pod_that_starts_under_a_wrong_configuration_does_not_get_ready(mesh):
    mesh.stop_proxy()
    lab.apply(with_configuration(lab.misspelt(lab.plugin_configuration())))
    mesh.start_proxy(is_awaited=False)
    lab.until(lambda: "plans.small.budget" in mesh.log("agent"), "the reason in the proxy's log")
    assert not mesh.is_proxy_ready()
    lab.apply(lab.shipped_filter())
    lab.until(mesh.is_proxy_ready, "the proxy to be ready")
    assert ask("acme").status == 200
