"""HTTP/2 on either side of bursar: Envoy itself, on further listeners, translates from and to the tests' HTTP/1.1.

Its HTTP/2 is the real thing, with flow control, and its peers are as strict about a stale content-length.
"""

import copy

from .envoy import render

HTTP2 = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    "explicit_http_config": {"http2_protocol_options": {}}}}


def speak_http2(doc, folder, downstream, upstream):
    """To bursar's clients, its upstream, or both. Makes sockets in `folder`."""
    if upstream:
        _upstream(doc, folder)
    if downstream:   # last, since it puts another listener in the place of bursar's
        _downstream(doc, folder)


def _downstream(doc, folder):
    """The port that tests connect to leads over HTTP/2 to bursar's listener, which now is a socket."""
    listener = render.listener(doc)
    front = translator(doc, "front", listener["address"], to="bursar")
    listener["address"] = pipe(folder / "in")
    add_cluster(doc, "bursar", listener["address"], HTTP2)
    # The harness asks the first listener for its port.
    doc["static_resources"]["listeners"].insert(0, front)


def _upstream(doc, folder):
    """bursar's clusters lead over HTTP/2 to a listener on a socket, and from there to where they led before."""
    behind = render.clusters(doc)[0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    for cluster in render.clusters(doc):
        address(cluster, pipe(folder / "out"))
        cluster["typed_extension_protocol_options"] = HTTP2
    doc["static_resources"]["listeners"].append(translator(doc, "back", pipe(folder / "out"), to="behind"))
    add_cluster(doc, "behind", behind)


def pipe(path):
    return {"pipe": {"path": str(path)}}


def address(cluster, where):
    cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": where}}]}]
    cluster["type"] = "STATIC"
    cluster.pop("dns_lookup_family", None)


def add_cluster(doc, name, where, options=None):
    cluster = {"name": name, "connect_timeout": "5s", "load_assignment": {"cluster_name": name}}
    address(cluster, where)
    if options:
        cluster["typed_extension_protocol_options"] = options
    render.clusters(doc).append(cluster)


def translator(doc, name, where, to):
    """A listener without bursar that sends everything to the cluster `to`."""
    manager = copy.deepcopy(render.hcm(doc))
    del manager["access_log"]
    manager.update({
        "stat_prefix": name, "http_filters": [each for each in manager["http_filters"] if each["name"] != "bursar"],
        "route_config": {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": to, "timeout": "0s"}}]}]}})
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {"name": name, "address": where, "filter_chains": [{"filters": filters}]}
