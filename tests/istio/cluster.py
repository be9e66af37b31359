"""An unmodified kube-apiserver with its etcd, as a cluster has it, without controllers and nodes: what it refuses, a cluster refuses.

Runs inside namespace.sh, on 127.0.0.1. The client is an administrator.
"""

import json
import os
import ssl
import urllib.error
import urllib.request

import lab
import yaml

PORT, ETCD, ETCD_PEERS = 26444, "http://127.0.0.1:26379", "http://127.0.0.1:26380"
URL = f"https://127.0.0.1:{PORT}"
TOKEN = "of-the-tests"
ISTIO_CRDS = lab.ISTIO / "manifests/charts/base/files/crd-all.gen.yaml"


class Cluster:
    """Empty, but for Istio's CRDs and the namespaces given. Use it within `with`."""

    def __init__(self, folder, namespaces=("istio-system", "team-a")):
        self.folder = folder
        self.namespaces = namespaces
        self.processes = lab.Processes()
        self._tls = None
        self._urls = {}

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.processes.stop_all()
            raise
        return self

    def __exit__(self, *_):
        self.processes.stop_all()

    def _start(self):
        command = os.environ["APISERVER"]
        self.processes.start("etcd", [
            command, "etcd", "--data-dir", self.folder / "etcd", "--unsafe-no-fsync",
            "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD, "--listen-peer-urls", ETCD_PEERS,
            "--initial-advertise-peer-urls", ETCD_PEERS, "--initial-cluster", f"default={ETCD_PEERS}"])
        self._until(lambda: lab.answers(ETCD + "/health"), "etcd")
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{TOKEN},admin,admin,"system:masters"\n', encoding="utf-8")
        self.processes.start("kube-apiserver", [
            command, "--etcd-servers", ETCD, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1",
            "--secure-port", PORT, "--cert-dir", self.folder, "--token-auth-file", tokens, "--authorization-mode", "RBAC",
            # No Service points to it, and no controller makes service accounts.
            "--endpoint-reconciler-type", "none", "--disable-admission-plugins", "ServiceAccount",
            "--service-cluster-ip-range", "10.0.0.0/24", "--service-account-issuer", URL,
            "--service-account-key-file", lab.LAB / "tls/server.pem",
            "--service-account-signing-key-file", lab.LAB / "tls/server.key"])
        self._until(self._is_ready, "kube-apiserver")
        for crd in lab.load(ISTIO_CRDS):
            self.must_apply(crd)
        for crd in lab.load(ISTIO_CRDS):
            self._until(lambda crd=crd: self._is_served(crd), crd["metadata"]["name"])
        for namespace in self.namespaces:
            self.must_apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})

    def _until(self, ask, what):
        def ask_the_living():
            self.processes.check()
            return ask()
        lab.until(ask_the_living, what, 120)

    def _is_ready(self):
        # It signs a certificate for itself when it starts.
        self._tls = ssl.create_default_context(cafile=self.folder / "apiserver.crt")
        return self.ask("GET", "/readyz")[0] == 200

    def _is_served(self, crd):
        """Whether each version of it is; a new CustomResourceDefinition is a moment later than its creation."""
        spec = crd["spec"]
        return all(self.ask("GET", f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}")[0] == 200
                   for version in spec["versions"] if version["served"])

    def ask(self, method, path, body=None, content_type="application/json"):
        """(status, answer: an object, or text where it is no JSON)."""
        request = urllib.request.Request(URL + path, body, method=method, headers={
            "content-type": content_type, "authorization": f"Bearer {TOKEN}"})
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._tls) as response:
                status, text = response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        return status, json.loads(text) if text.startswith("{") else text

    def path_of(self, document):
        version, meta = document["apiVersion"], document["metadata"]
        root = f"/{'apis' if '/' in version else 'api'}/{version}"
        if root not in self._urls:
            status, found = self.ask("GET", root)
            assert status == 200, f"{version}: {found}"
            self._urls[root] = {each["kind"]: each for each in found["resources"] if "/" not in each["name"]}
        resource = self._urls[root][document["kind"]]
        namespace = f"/namespaces/{meta.get('namespace', 'default')}" if resource["namespaced"] else ""
        return f"{root}{namespace}/{resource['name']}/{meta['name']}"

    def apply(self, document):
        """As `kubectl apply --server-side`, which like `kubectl apply` refuses fields that the schema has not: (status, answer)."""
        return self.ask("PATCH", self.path_of(document) + "?fieldManager=tests&fieldValidation=Strict&force=true",
                        yaml.safe_dump(document).encode(), "application/apply-patch+yaml")

    def must_apply(self, document):
        status, answer = self.apply(document)
        assert status < 300, f"{document['kind']} {document['metadata']['name']}: {status} {answer}"
        return answer
