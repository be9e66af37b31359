"""Envoy's traces: envoy/tracing.yaml as it is shipped, and the spans that arrive where a collector would be."""

import copy

import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .envoy import ROOT, render
from .wait import until

SHIPPED = yaml.safe_load((ROOT / "envoy/tracing.yaml").read_text(encoding="utf-8"))
PATH = "/v1/traces"
REQUEST_ID = "guid:x-request-id"
# Envoy's default is to wait for five spans, or for five seconds.
AT_ONCE = {"layers": [{"name": "tests", "static_layer": {"tracing.opentelemetry.min_flush_spans": 1}}]}


def traced_to(port=None, **more):
    """`change` of a rig: its Envoy sends spans to this port on this machine; without one, to the rig's own upstream.
    `more` goes into `tracing`."""
    def change(doc):
        shipped = copy.deepcopy(SHIPPED)
        render.hcm(doc)["tracing"] = shipped["tracing"] | more
        upstream = render.clusters(doc)[0]["load_assignment"]["endpoints"]
        cluster = shipped["cluster"]
        if port is None:
            cluster["load_assignment"]["endpoints"] = upstream
        else:
            address_of(cluster)["port_value"] = port
        render.clusters(doc).append(cluster)
        doc["layered_runtime"] = AT_ONCE
    return change


def address_of(cluster):
    return cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]


def exported(upstream):
    """Every span that has come so far."""
    for request in list(upstream.requests):
        if request.target == PATH:
            for resource in ExportTraceServiceRequest.FromString(request.body).resource_spans:
                for scope in resource.scope_spans:
                    yield from scope.spans


def spans(upstream):
    """The spans of requests that have come so far, by the request's id."""
    found = {}
    for span in exported(upstream):
        found.setdefault(tags(span).get(REQUEST_ID), []).append(span)
    return found


def both(upstream, request_id):
    """The span of a request, and that of its way upstream, which does not have the request's id."""
    all_of_them = list(exported(upstream))
    traces = {span.trace_id for span in all_of_them if tags(span).get(REQUEST_ID) == request_id}
    return [span for span in all_of_them if span.trace_id in traces]


def tags(span):
    return {each.key: each.value.string_value for each in span.attributes}


def span_of(rig, response):
    """The one span of an answer."""
    request_id = rig.log(response)["request_id"]
    (span,) = until(lambda: spans(rig.upstream).get(request_id), f"the span of {response}")
    return span
