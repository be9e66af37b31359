"""A pod in a mesh, without a cluster: an API of Kubernetes, a real istiod, pilot-agent with a vanilla Envoy, and an LLM behind TLS.

Runs inside namespace.sh. Everything listens on 127.0.0.1; the LLM's name is 127.0.0.2, from where port 80 is redirected.
"""

import base64
import copy
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LAB = Path(os.environ["ISTIO_LAB"])
BIN = Path(os.environ["ISTIO_BIN"])
ISTIO = Path(os.environ["ISTIO_SOURCE"])          # Istio's module: CRDs and the template of a proxy's bootstrap
GATEWAY_API = Path(os.environ["GATEWAY_API_SOURCE"])
ENVOY = os.environ["ENVOY"]
KUBE = "http://127.0.0.1:26443"
STANDIN_PORT = 26001
DEADLINE_SECONDS = 60

# How istiod and its proxies log what a test reads.
MESH = r"""
accessLogFile: /dev/stdout
accessLogFormat: "LOG %REQ(:AUTHORITY)% %RESPONSE_CODE% %RESPONSE_CODE_DETAILS% bursar=%FILTER_STATE(wasm.bursar:PLAIN)%\n"
enablePrometheusMerge: false
defaultConfig: {discoveryAddress: "127.0.0.1:15010", controlPlaneAuthPolicy: NONE, concurrency: 2}
outboundTrafficPolicy: {mode: ALLOW_ANY}
"""


WEB = "http://127.0.0.1:26600/bursar.wasm"
# Of the pods that fetch an image: the tests' registry has no TLS.
REGISTRY = {"WASM_INSECURE_REGISTRIES": "registry.local:26500"}


def shipped_mesh_config():
    (document,) = load(ROOT / "istio/mesh-config.yaml")
    return document["spec"]["meshConfig"]


# namespace.sh redirects connections but for those of this group, as istio-init does.
PROXY_GROUP = 1337
# A vanilla Envoy has no istio.alpn and no istio.metadata_exchange; istio.stats comes only with a telemetry provider.
FOR_A_VANILLA_ENVOY = {"PILOT_ENABLE_ALPN_FILTER": "false", "PILOT_ENABLE_METADATA_EXCHANGE": "false"}


def until(ask, what, seconds=DEADLINE_SECONDS):
    """Asks again until the answer is true."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = ask()
        except (OSError, http.client.HTTPException, KeyError, ValueError) as error:
            answer, last = None, repr(error)
        else:
            last = repr(answer)
        if answer:
            return answer
        assert time.monotonic() < end, f"{what} did not come within {seconds} s: {last}"
        time.sleep(0.05)   # between two questions, not for a state to come


def get(url):
    with urllib.request.urlopen(url, timeout=10) as response:
        return response.read().decode()


def answers(url):
    """Whether a URL is answered with success."""
    try:
        get(url)
        return True
    except OSError:
        return False


# --- processes ---------------------------------------------------------------


class Processes:
    """What a test module has started, by name; each in a group of its own, and ended in the reverse order."""

    def __init__(self):
        self._running = {}
        (LAB / "logs").mkdir(parents=True, exist_ok=True)

    def start(self, name, command, environment=None, folder=LAB, group=None):
        with open(LAB / "logs" / f"{name}.log", "w", encoding="utf-8") as out:
            self._running[name] = subprocess.Popen(
                [str(word) for word in command], stdout=out, stderr=subprocess.STDOUT, cwd=folder,
                env={**os.environ, **(environment or {})}, start_new_session=True, group=group)

    def is_running(self, name):
        return name in self._running

    def check(self):
        for name, process in self._running.items():
            assert process.poll() is None, f"{name} ended with {process.returncode}:\n{self.log(name)[-3000:]}"

    def stop(self, name):
        process = self._running.pop(name, None)
        if process is None:
            return
        for kind in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, kind)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass

    def stop_all(self):
        for name in list(self._running)[::-1]:
            self.stop(name)

    def log(self, name):
        return (LAB / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")


# --- Kubernetes' API -----------------------------------------------------------

IRREGULAR = {"ServiceEntry": "serviceentries", "GatewayClass": "gatewayclasses", "Telemetry": "telemetries",
             "NetworkPolicy": "networkpolicies"}


def url_of(document, with_name=True):
    version = document["apiVersion"]
    parts = [KUBE, "apis" if "/" in version else "api", version]
    if "namespace" in document["metadata"]:
        parts += ["namespaces", document["metadata"]["namespace"]]
    parts.append(IRREGULAR.get(document["kind"], document["kind"].lower() + "s"))
    return "/".join(parts + ([document["metadata"]["name"]] if with_name else []))


def kube(method, url, body=None):
    request = urllib.request.Request(url, json.dumps(body).encode() if body is not None else None, method=method,
                                     headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def apply(*documents):
    for document in documents:
        status, old = kube("GET", url_of(document))
        if status == 200:
            meta = {**document["metadata"], "resourceVersion": old["metadata"]["resourceVersion"]}
            status, answer = kube("PUT", url_of(document), {**document, "metadata": meta})
        else:
            status, answer = kube("POST", url_of(document, with_name=False), document)
        assert status < 300, f"{document['kind']} {document['metadata']['name']}: {status} {answer}"


def delete(document):
    kube("DELETE", url_of(document))


def load(path):
    return [document for document in yaml.safe_load_all(Path(path).read_text(encoding="utf-8")) if document]


def service_account_token(namespace, account):
    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
    subject = {"sub": f"system:serviceaccount:{namespace}:{account}", "exp": int(time.time()) + 86_400}
    return f"{part({'alg': 'none'})}.{part(subject)}.x"


# --- the mesh ------------------------------------------------------------------


@dataclass(frozen=True)
class Pod:
    """A pod with a proxy. All pods share the addresses of one machine, so a second one has its proxy's own ports elsewhere."""

    name: str = "app-0"
    namespace: str = "team-a"
    account: str = "default"
    address: str = "127.0.0.10"
    labels: tuple = (("app", "app"), ("bursar", "enabled"))
    kind: str = "sidecar"
    ports: int = 15000   # the admin port; 20, 21 and 90 further on are the agent's, readiness and metrics


class Mesh:
    """istiod, the LLM and the proxies of pods. Use it within `with`."""

    def __init__(self):
        self.processes = Processes()
        self.log = self.processes.log

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.processes.stop_all()

    def start(self, *documents, **environment):
        """Starts all but the proxy, with these objects in the API."""
        crds = [ISTIO / "manifests/charts/base/files/crd-all.gen.yaml", *sorted(GATEWAY_API.glob("gateway.networking*.yaml"))]
        crds = [word for path in crds for word in ("--crds", path)]
        self.processes.start("kubernetes", [sys.executable, HERE / "kubernetes.py", "--port", "26443", *crds])
        self._until(lambda: answers(KUBE + "/version"), "the API of Kubernetes")
        for namespace in ("istio-system", "team-a", "team-b", "default"):
            apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        apply(*documents)
        self._start_istiod(environment)
        self.processes.start("standin", [sys.executable, ROOT / "envoy/standin.py", "--port", STANDIN_PORT])
        self.processes.start("tls", [sys.executable, HERE / "tls_front.py", LAB / "tls/server.pem", LAB / "tls/server.key",
                                     STANDIN_PORT])

    def _until(self, ask, what, seconds=DEADLINE_SECONDS):
        def ask_the_living():
            self.processes.check()
            return ask()
        return until(ask_the_living, what, seconds)

    def _start_istiod(self, environment):
        mesh = yaml.safe_load(MESH)
        mesh["extensionProviders"] = shipped_mesh_config()["extensionProviders"]
        (LAB / "mesh.yaml").write_text(yaml.safe_dump(mesh), encoding="utf-8")
        (LAB / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": {"server": KUBE}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}]}),
            encoding="utf-8")
        command = [BIN / "pilot-discovery", "discovery", "--meshConfig", LAB / "mesh.yaml", "--registries", "Kubernetes",
                   "--kubeconfig", LAB / "kubeconfig", "--httpAddr", "127.0.0.1:26081", "--httpsAddr", "127.0.0.1:15017",
                   "--grpcAddr", "127.0.0.1:15010", "--secureGRPCAddr", "127.0.0.1:15012",
                   "--monitoringAddr", "127.0.0.1:15014", "--ctrlz_port", "26876"]
        self.processes.start("istiod", command, {
            "POD_NAMESPACE": "istio-system", "POD_NAME": "istiod-0", "CLUSTER_ID": "Kubernetes",
            "KUBERNETES_CLIENT_CONTENT_TYPE": "json", "PILOT_DEBOUNCE_AFTER": "50ms", **FOR_A_VANILLA_ENVOY, **environment})
        self._until(lambda: answers("http://127.0.0.1:26081/ready"), "istiod to be ready", 120)

    def add_pod(self, pod=Pod()):
        document = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)},
            "spec": {"containers": [{"name": "app", "image": "x"}], "serviceAccountName": pod.account, "nodeName": "n"}}
        apply(document)
        _, document = kube("GET", url_of(document))
        status = {"phase": "Running", "podIP": pod.address, "podIPs": [{"ip": pod.address}],
                  "conditions": [{"type": "Ready", "status": "True"}]}
        kube("PUT", url_of(document) + "/status", {**document, "status": status})

    def start_proxy(self, pod=Pod(), annotations=None, environment=None, proxy_config=None, is_awaited=True):
        """pilot-agent and the Envoy that it starts."""
        home = LAB / f"pod-{pod.kind}"
        for folder in ("etc/istio/pod", "etc/istio/proxy", "var/lib/istio/data", "var/run/secrets/tokens", "var/run/secrets/istio"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        files = {
            "etc/istio/pod/labels": downward(dict(pod.labels)), "etc/istio/pod/annotations": downward(annotations),
            "var/run/secrets/tokens/istio-token": service_account_token(pod.namespace, pod.account),
            "var/run/secrets/istio/root-cert.pem": self._root_certificate()}
        for path, text in files.items():
            (home / path).write_text(text, encoding="utf-8")
        template = (ISTIO / "tools/packaging/common/envoy_bootstrap.json").read_text(encoding="utf-8")
        # A vanilla Envoy has no istio.workload.BootstrapExtension.
        (LAB / "bootstrap.json").write_text(template.replace("{{- if .metadata_discovery }}", "{{- if false }}"), encoding="utf-8")
        proxy = {"binaryPath": ENVOY, "discoveryAddress": "istiod.istio-system.svc:15012", "concurrency": 2,
                 "proxyAdminPort": pod.ports, "statusPort": pod.ports + 20, **(proxy_config or {})}
        self.processes.start(
            agent_of(pod), [BIN / "pilot-agent", "proxy", pod.kind, "--domain", f"{pod.namespace}.svc.cluster.local",
                            "--proxyLogLevel=warning,wasm:info", "--templateFile", LAB / "bootstrap.json"],
            {"POD_NAME": pod.name, "POD_NAMESPACE": pod.namespace, "INSTANCE_IP": pod.address, "SERVICE_ACCOUNT": pod.account,
             "PROXY_CONFIG": json.dumps(proxy), "CLOUD_PLATFORM": "none", "TRUST_DOMAIN": "cluster.local",
             "ENVOY_STATUS_PORT": str(pod.ports + 21), "ENVOY_PROMETHEUS_PORT": str(pod.ports + 90),
             "PROXY_XDS_DEBUG_VIA_AGENT": "false",
             "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_MESH_ID": "cluster.local", "ISTIO_META_WORKLOAD_NAME": "app",
             "ISTIO_META_INTERCEPTION_MODE": "REDIRECT", "PILOT_CERT_PROVIDER": "istiod", **(environment or {})},
            home, group=PROXY_GROUP)
        if is_awaited:
            self._until(lambda: self.is_proxy_ready(pod), "the proxy to be ready")

    def stop_proxy(self, pod=Pod()):
        self.processes.stop(agent_of(pod))

    def is_proxy_ready(self, pod=Pod()):
        return answers(f"http://127.0.0.1:{pod.ports + 21}/healthz/ready")

    def _root_certificate(self):
        """What istiod writes into each namespace, and the pod has as a volume."""
        url = f"{KUBE}/api/v1/namespaces/team-a/configmaps/istio-ca-root-cert"
        return self._until(lambda: kube("GET", url)[1]["data"]["root-cert.pem"], "istio-ca-root-cert")

    def refusals(self):
        """What istiod logged of configurations that a proxy refused."""
        return [line for line in self.log("istiod").splitlines() if "ACK ERROR" in line]


def agent_of(pod):
    """The name of its process and of its log."""
    return "agent" if pod.ports == Pod.ports else f"agent-{pod.kind}"


def downward(values):
    """Labels or annotations as the downward API writes them into a file."""
    return "".join(f"{name}={json.dumps(value)}\n" for name, value in (values or {}).items())


# --- the proxy, asked through its admin port --------------------------------------


def admin(path, pod=Pod()):
    return get(f"http://127.0.0.1:{pod.ports}{path}")


def stat(name):
    """A counter or gauge of Envoy's own; 0 if there is none."""
    found = re.search(rf"^{re.escape(name)}: (\d+)", admin(f"/stats?filter=^{name}$"), re.M)
    return int(found[1]) if found else 0


def rejected():
    return stat("listener_manager.lds.update_rejected") + stat("cluster_manager.cds.update_rejected")


def http_filters():
    """(listener, names of its HTTP filters) of each filter chain."""
    found = []
    for config in json.loads(admin("/config_dump"))["configs"]:
        for entry in config.get("dynamic_listeners", []):
            listener = entry.get("active_state", {}).get("listener", {})
            for chain in [*listener.get("filter_chains", []), listener.get("default_filter_chain") or {}]:
                for network_filter in chain.get("filters", []):
                    filters = network_filter.get("typed_config", {}).get("http_filters")
                    if filters:
                        found.append((listener["name"], [each["name"] for each in filters]))
    return found


# --- what an application sends ----------------------------------------------------


class Answer:
    """Status, headers and text."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode()

    @property
    def decision(self):
        return self.headers.get("x-bursar-decision")

    @property
    def model(self):
        return self.headers.get("x-bursar-model")

    @property
    def code(self):
        return json.loads(self.text)["error"]["code"]

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.text[:300]!r}>"


def ask(tenant, host="api.openai.com", address=None, max_tokens=20, text="Hello", stream=False):
    """One chat completion over plain HTTP. `address`: another one than the host's, as (name, port)."""
    body = {"model": "gpt-4o", "max_tokens": max_tokens, "messages": [{"role": "user", "content": text}]}
    if stream:
        body["stream"] = True
    headers = {"host": host, "content-type": "application/json"}
    if tenant is not None:
        headers["x-tenant-id"] = tenant
    connection = http.client.HTTPConnection(*(address or (host, 80)), timeout=30)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def over_https(host="api.openai.com"):
    """What an SDK at its default does, encrypted from the application on: the status, or None where there is no connection."""
    context = ssl.create_default_context(cafile="/etc/ssl/certs/ca-certificates.crt")
    connection = http.client.HTTPSConnection(host, context=context, timeout=30)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def spend_all(tenant, **how):
    """Asks until the tenant is refused: (decision, model) in their order without repeats, and the refusal."""
    seen = []
    for _ in range(100):
        answer = ask(tenant, max_tokens=200, **how)
        if (answer.decision, answer.model) not in seen and answer.status == 200:
            seen.append((answer.decision, answer.model))
        if answer.status != 200:
            return seen, answer
    raise AssertionError(f"{tenant} is never refused: {seen}")


# --- the YAML that is shipped -------------------------------------------------------

EGRESS = ROOT / "istio/openai-egress.yaml"
ENVOY_FILTER = ROOT / "istio/envoyfilter.yaml"


def shipped_filter():
    (document,) = load(ENVOY_FILTER)
    return document


def plugin(envoy_filter):
    """The PluginConfig within an EnvoyFilter of ours."""
    (patch,) = envoy_filter["spec"]["configPatches"]
    return patch["patch"]["value"]["typed_config"]["extension_config"]["typed_config"]["config"]


def plugin_configuration():
    return json.loads(plugin(shipped_filter())["configuration"]["value"])


def changed(configuration, change):
    """A configuration with `change` made to a copy of it."""
    configuration = copy.deepcopy(configuration)
    change(configuration)
    return configuration


def more_budget(configuration, tokens=40_000):
    return changed(configuration, lambda c: c["plans"]["small"]["budget"].update(initial_budget=tokens))


def misspelt(configuration):
    return changed(configuration, lambda c: c["plans"]["small"]["budget"].update(windw="day"))


def extension(namespace, **target):
    """The shipped TrafficExtension, for another place."""
    (document,) = load(ROOT / "istio/traffic-extension.yaml")
    document["metadata"]["namespace"] = namespace
    document["spec"] = {**target, "wasm": {
        **document["spec"]["wasm"], "url": "file:///var/local/bursar/bursar.wasm",
        "pluginConfig": changed(plugin_configuration(), lambda c: c.update(hold_headers=False))}}
    return document


def other_host():
    """A service of the mesh beside the LLM, on the same port."""
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "other", "namespace": "team-a"},
            "spec": {"hosts": ["other.example"], "location": "MESH_EXTERNAL", "resolution": "STATIC",
                     "endpoints": [{"address": "127.0.0.1"}],
                     "ports": [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": STANDIN_PORT}]}}


def collector(port):
    """The collector that istio/mesh-config.yaml names, at this port here."""
    (provider,) = [each["opentelemetry"] for each in shipped_mesh_config()["extensionProviders"] if "opentelemetry" in each]
    return {"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "collector", "namespace": "istio-system"},
            "spec": {"hosts": [provider["service"]], "resolution": "STATIC", "endpoints": [{"address": "127.0.0.1"}],
                     "ports": [{"number": provider["port"], "name": "http", "protocol": "HTTP", "targetPort": port}]}}


# What globex's 4,000 tokens a day are worth, with answers of 200 tokens.
WAY_DOWN = [("admit", "gpt-4o"), ("downgrade", "gpt-4.1-mini"), ("downgrade", "gpt-4o-mini")]
