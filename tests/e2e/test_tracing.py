"""The tags of Envoy's own tracer, from envoy/tracing.yaml as it is shipped, where a collector would get them."""

import re

import pytest
import yaml

from harness import answers, config, http, otlp
from harness.envoy import ROOT
from harness.rig import CHAT, MODES, STREAMING, chat_body
from harness.wait import until

PLANS = {"large": {"budget": config.budget(1_000_000)}, "low": {"budget": config.budget(1_000), "low_water_mark": 0.95}}
SERVER, CLIENT, NO_STATUS, FAILED = 2, 3, 0, 2   # as OTLP counts kinds and statuses
TAGS = {tag["tag"]: tag["value"] for tag in otlp.SHIPPED["tracing"]["custom_tags"]}


@pytest.fixture(scope="module", params=MODES)
def rig(request, start_rig):
    plugin_config = config.plugin_config(PLANS, log_fields=otlp.SHIPPED["log_fields"])
    return start_rig(plugin_config, mode=request.param, change=otlp.traced_to())


def told(span):
    return {name: value for name, value in otlp.tags(span).items() if name.startswith(("gen_ai.", "bursar."))}


def uses(span):
    return [name for name in told(span) if name.startswith("gen_ai.usage.")]


def read_by(text):
    return set(re.findall(r"wasm\.bursar_(\w+)", text))


def test_the_tags_read_exactly_the_fields_that_are_set_apart():
    fields = otlp.SHIPPED["log_fields"]
    assert sorted(read_by(str(otlp.SHIPPED["tracing"]))) == sorted(set(fields)) == sorted(fields)


def test_the_page_explains_every_tag():
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert [name for name in TAGS if f"`{name}`" not in page] == []


def test_istio_has_the_same_tags():
    (telemetry,) = yaml.safe_load_all((ROOT / "istio/tracing.yaml").read_text(encoding="utf-8"))
    (traces,) = telemetry["spec"]["tracing"]
    assert {name: tag["formatter"]["value"] for name, tag in traces["customTags"].items()} == TAGS


@pytest.mark.parametrize("stream", [None, True])
def test_a_request_that_is_served_tells_what_it_used(rig, stream):
    tenant = rig.tenant("large")
    span = otlp.span_of(rig, rig.chat(tenant, usage=(30, 12, 5), stream=stream))
    assert (span.name, span.kind, span.status.code) == ("chat gpt-4o", SERVER, NO_STATUS)
    assert told(span) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.input_tokens": "30",
        "gen_ai.usage.cache_read.input_tokens": "5", "gen_ai.usage.output_tokens": "12", "bursar.tenant": tenant, "bursar.tier": "default",
        "bursar.requested_model": "gpt-4o", "bursar.decision": "admit", "bursar.spend": "189", "bursar.settled_by": "usage"}


def test_a_downgrade_tells_both_models_and_why(rig):
    tenant = rig.tenant("low")
    rig.spend(tenant, 100)
    span = otlp.span_of(rig, rig.chat(tenant, usage=(1, 1)))
    tags = told(span)
    assert span.name == "chat gpt-4o-mini"
    assert (tags["gen_ai.request.model"], tags["bursar.requested_model"]) == ("gpt-4o-mini", "gpt-4o")
    assert (tags["bursar.tier"], tags["bursar.decision"], tags["bursar.reason"], tags["bursar.limit"]) == ("compact", "downgrade", "budget_low", "budget")


def test_a_refusal_tells_why_and_uses_nothing(rig):
    tenant = rig.tenant("low")
    rig.spend(tenant, 1_000)
    response = rig.chat(tenant, usage=(1, 1))
    assert response.status == 429
    span = otlp.span_of(rig, response)
    tags = told(span)
    assert (tags["bursar.decision"], tags["bursar.reason"], tags["bursar.limit"]) == ("throttle", "budget_exhausted", "budget")
    assert span.status.code == NO_STATUS
    assert uses(span) == [] and "bursar.spend" not in tags


def test_a_request_that_is_not_metered_has_no_tags_of_ours(rig):
    span = otlp.span_of(rig, rig.get("/v1/models"))
    assert (span.name, told(span)) == ("ingress", {})


@pytest.mark.parametrize("path, body, operation", [
    (CHAT, chat_body(), "chat"),
    ("/v1/responses", b'{"model":"gpt-4o","input":"Hi"}', "chat"),
    ("/v1/messages", chat_body(), "chat"),
    ("/v1/completions", b'{"model":"gpt-4o","prompt":"Hi"}', "text_completion"),
    ("/v1/embeddings", b'{"model":"gpt-4o","input":"Hi"}', "embeddings"),
    ("/v1beta/models/gpt-4o:generateContent", b'{"contents":[]}', "generate_content"),
    ("/v1beta/models/gpt-4o:streamGenerateContent?alt=sse", b'{"contents":[]}', "generate_content"),
    ("/openai/deployments/gpt-4o/chat/completions?api-version=1", chat_body(), "chat"),
])
def test_the_operation_is_that_of_the_path(rig, path, body, operation):
    span = otlp.span_of(rig, rig.post(rig.tenant("large"), body, path=path))
    assert (told(span)["gen_ai.operation.name"], span.name) == (operation, f"{operation} gpt-4o")


def test_a_key_in_the_query_is_in_no_tag(rig):
    response = rig.post(rig.tenant("large"), b'{"contents":[]}', path="/v1beta/models/gpt-4o:generateContent?key=AIzaSecret")
    span = otlp.span_of(rig, response)
    assert otlp.tags(span)["http.url"] == "http://llm.test/v1beta/models/gpt-4o:generateContent"
    assert b"AIzaSecret" not in span.SerializeToString()


def test_a_failure_of_the_provider_fails_the_span(rig):
    span = otlp.span_of(rig, rig.chat(rig.tenant("large"), answer=answers.error(500)))
    assert (span.status.code, otlp.tags(span)["error"], told(span)["gen_ai.usage.output_tokens"]) == (FAILED, "true", "0")


# Envoy ends the span before it tells the filter that a stream broke off. What the page says of sums follows from this.


def test_the_span_of_an_answer_that_breaks_off_has_no_usage(rig):
    cut = answers.json_answer("gpt-4o", answers.usage(3, 4), framing="chunked", then="reset")
    response = rig.chat(rig.tenant("large"), answer=cut)
    assert rig.log(response)["charged"] > 0
    span = otlp.span_of(rig, response)
    assert (told(span)["bursar.decision"], span.status.code, uses(span)) == ("admit", NO_STATUS, [])


def leave(rig, tenant):
    """The access log's entry of a client that leaves in the midst of its request."""
    test_id, before = rig.new_id(), rig.envoy.read_from_clients()
    with rig.connect() as connection:
        sent = http.head("POST", CHAT, rig.headers(tenant, test_id, more=[("content-length", 9_999)])) + chat_body()
        connection.send(sent)
        until(lambda: rig.envoy.read_from_clients() >= before + len(sent), "Envoy to read the request")
    return rig.envoy.logged(test_id)


def test_the_span_of_a_client_that_leaves_has_no_usage(rig):
    tenant = rig.tenant("large")
    entry = leave(rig, tenant)
    (span,) = until(lambda: otlp.spans(rig.upstream).get(entry["request_id"]), "the span")
    assert entry["tenant"] == told(span)["bursar.tenant"] == tenant
    assert uses(span) == []


def test_a_second_span_has_the_usage_where_the_first_has_not(start_rig):
    plugin_config = config.plugin_config(PLANS, log_fields=otlp.SHIPPED["log_fields"])
    rig = start_rig(plugin_config, mode=STREAMING, change=otlp.traced_to(spawn_upstream_span=True))
    tenant = rig.tenant("large")

    def kinds_that_use(entry):
        spans = until(lambda: len(both := otlp.both(rig.upstream, entry["request_id"])) == 2 and both, "both spans")
        assert {span.kind for span in spans} == {SERVER, CLIENT}
        assert all(told(span)["bursar.tenant"] == tenant for span in spans)
        return [span.kind for span in spans if uses(span)]

    assert kinds_that_use(rig.log(rig.chat(tenant, usage=(30, 12)))) == [SERVER]
    assert kinds_that_use(leave(rig, tenant)) == [CLIENT]
