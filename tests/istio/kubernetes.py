"""A Kubernetes API in memory, just large enough for istiod: get, list, watch (watch-list too), create, replace, merge, delete.

    python kubernetes.py --port 26443 --crds crd-all.gen.yaml

It keeps objects and tells watchers; it validates nothing: what `istioctl validate` and istiod's webhook refuse is tested with those,
and what schemas and CEL refuse in test_apiserver.py. Authentication is a token's own word. For tests on 127.0.0.1 alone.
"""

import argparse
import base64
import copy
import json
import queue
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import yaml

# What istiod asks for that no CustomResourceDefinition names: (group, plural, kind).
BUILT_IN = [
    ("", "namespaces", "Namespace"), ("", "services", "Service"), ("", "pods", "Pod"), ("", "configmaps", "ConfigMap"),
    ("", "secrets", "Secret"), ("", "nodes", "Node"), ("", "serviceaccounts", "ServiceAccount"),
    ("discovery.k8s.io", "endpointslices", "EndpointSlice"), ("networking.k8s.io", "ingresses", "Ingress"),
    ("networking.k8s.io", "ingressclasses", "IngressClass"), ("networking.k8s.io", "networkpolicies", "NetworkPolicy"),
    ("autoscaling", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ("policy", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
]
RESOURCE = re.compile(r"/(?:api|apis/([^/]+))/([^/]+)(?:/namespaces/([^/]+)(?=/))?/([^/]+)(?:/([^/]+))?(?:/(\w+))?")
IDLE_WATCH_SECONDS = 20


class Objects:
    """All objects, by (group, plural) and then (namespace, name), with their history for watches that begin late."""

    def __init__(self):
        self.lock = threading.RLock()
        self.version = 100
        self.kinds = {(group, plural): kind for group, plural, kind in BUILT_IN}
        self._objects, self._history, self._watches = {}, [], []

    def all(self, resource):
        with self.lock:
            return list(self._objects.get(resource, {}).values()), self.version

    def one(self, resource, key):
        with self.lock:
            return copy.deepcopy(self._objects.get(resource, {}).get(key))

    def put(self, resource, obj):
        return self._change(resource, obj, is_deleted=False)

    def delete(self, resource, obj):
        return self._change(resource, obj, is_deleted=True)

    def _change(self, resource, obj, is_deleted):
        with self.lock:
            objects = self._objects.setdefault(resource, {})
            meta = obj.setdefault("metadata", {})
            key = (meta.get("namespace", ""), meta["name"])
            old = objects.get(key, {}).get("metadata")
            self.version += 1
            meta["resourceVersion"] = str(self.version)
            meta["uid"] = old["uid"] if old else str(uuid.uuid4())
            meta["creationTimestamp"] = old["creationTimestamp"] if old else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            meta["generation"] = old["generation"] + 1 if old else 1
            if is_deleted:
                objects.pop(key, None)
            else:
                objects[key] = obj
            event = (resource, self.version, "DELETED" if is_deleted else "MODIFIED" if old else "ADDED", copy.deepcopy(obj))
            self._history.append(event)
            for wanted, box in self._watches:
                if wanted == resource:
                    box.put(event)
            return obj

    def watch(self, resource, since):
        """A queue of events after a version, or of all that is there now (`since` None), and how many are in it at once."""
        box = queue.Queue()
        with self.lock:
            if since is None:
                now = self._objects.get(resource, {}).values()
                first = [(resource, self.version, "ADDED", obj) for obj in now]
            else:
                first = [event for event in self._history if event[0] == resource and event[1] > since]
            for event in first:
                box.put(event)
            self._watches.append((resource, box))
        return box, len(first)

    def unwatch(self, box):
        with self.lock:
            self._watches = [watch for watch in self._watches if watch[1] is not box]

    def define(self, crd):
        """Takes a CustomResourceDefinition."""
        names = crd["spec"]["names"]
        self.kinds[crd["spec"]["group"], names["plural"]] = names["kind"]
        crd.setdefault("status", {})["conditions"] = [{"type": "Established", "status": "True"}]
        self.kinds.setdefault(("apiextensions.k8s.io", "customresourcedefinitions"), "CustomResourceDefinition")
        self.put(("apiextensions.k8s.io", "customresourcedefinitions"), crd)


OBJECTS = Objects()


def merge(target, change):
    """RFC 7396."""
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = value


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    # --- what is asked for ---

    def parse(self):
        """Whether the path names a resource; then it is in `self`."""
        url = urlsplit(self.path)
        match = RESOURCE.fullmatch(url.path)
        if not match:
            return False
        group, version, self.namespace, plural, self.name, self.part = match.groups()
        self.resource = (group or "", plural)
        self.api_version = f"{group}/{version}" if group else version
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.key = (self.namespace or "", self.name)
        return True

    def body(self):
        return yaml.safe_load(self.rfile.read(int(self.headers.get("content-length") or 0)))

    def shown(self, obj):
        """An object as the client wants it: whole, or its metadata alone."""
        if "as=PartialObjectMetadata" in self.headers.get("accept", ""):
            return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
        kind = OBJECTS.kinds.get(self.resource) or self.resource[1][:-1].capitalize()
        return {**obj, "kind": kind, "apiVersion": self.api_version}

    def is_wanted(self, obj):
        name = re.search(r"metadata\.name=([^,]+)", self.query.get("fieldSelector", ""))
        is_named = not name or obj["metadata"]["name"] == name[1]
        return is_named and (not self.namespace or obj["metadata"].get("namespace") == self.namespace)

    # --- answers ---

    def answer(self, status, obj):
        data = json.dumps(obj).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, reason):
        self.answer(status, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status,
                             "message": reason})

    def do_GET(self):
        if urlsplit(self.path).path == "/version":
            return self.answer(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        if not self.parse():
            return self.refuse(404, "NotFound")
        if self.name:
            obj = OBJECTS.one(self.resource, self.key)
            return self.answer(200, self.shown(obj)) if obj else self.refuse(404, "NotFound")
        if self.query.get("watch") in ("true", "1"):
            return self.watch()
        found, version = OBJECTS.all(self.resource)
        items = [self.shown(obj) for obj in found if self.is_wanted(obj)]
        sample = self.shown({"metadata": {}})
        return self.answer(200, {"kind": sample["kind"] + "List", "apiVersion": sample["apiVersion"],
                                 "metadata": {"resourceVersion": str(version)}, "items": items})

    def watch(self):
        wants_all = self.query.get("sendInitialEvents") == "true"
        box, first = OBJECTS.watch(self.resource, None if wants_all else int(self.query.get("resourceVersion") or 0))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for _ in range(first):
                self.send_event(*box.get()[2:])
            if wants_all:
                self.send_bookmark({"k8s.io/initial-events-end": "true"})
            while True:
                try:
                    self.send_event(*box.get(timeout=IDLE_WATCH_SECONDS)[2:])
                except queue.Empty:
                    self.send_bookmark({})
        except OSError:
            self.close_connection = True
        finally:
            OBJECTS.unwatch(box)

    def send_event(self, kind, obj):
        if kind == "BOOKMARK" or self.is_wanted(obj):
            line = json.dumps({"type": kind, "object": self.shown(obj)}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()

    def send_bookmark(self, annotations):
        self.send_event("BOOKMARK", {"metadata": {"resourceVersion": str(OBJECTS.version), "annotations": annotations}})

    def do_POST(self):
        if not self.parse():
            return self.refuse(404, "NotFound")
        obj = self.body()
        if self.resource[1] in ("selfsubjectaccessreviews", "subjectaccessreviews"):
            return self.answer(201, {**obj, "status": {"allowed": True}})
        if self.resource[1] == "tokenreviews":
            return self.answer(201, {**obj, "status": reviewed(obj["spec"])})
        meta = obj.setdefault("metadata", {})
        if self.namespace:
            meta["namespace"] = self.namespace
        if OBJECTS.one(self.resource, (self.namespace or "", meta.get("name"))):
            return self.refuse(409, "AlreadyExists")
        return self.answer(201, OBJECTS.put(self.resource, obj))

    def do_PUT(self):
        obj = self.body()
        if not self.parse():
            return self.refuse(404, "NotFound")
        if self.part == "status":
            old = OBJECTS.one(self.resource, self.key)
            if not old:
                return self.refuse(404, "NotFound")
            obj = {**old, "status": obj.get("status")}
        obj["metadata"].update({"name": self.name, **({"namespace": self.namespace} if self.namespace else {})})
        return self.answer(200, OBJECTS.put(self.resource, obj))

    def do_PATCH(self):
        change = self.body()
        obj = OBJECTS.one(self.resource, self.key) if self.parse() else None
        if not obj:
            return self.refuse(404, "NotFound")
        if isinstance(change, dict):
            merge(obj, change)
        return self.answer(200, OBJECTS.put(self.resource, obj))

    def do_DELETE(self):
        obj = OBJECTS.one(self.resource, self.key) if self.parse() else None
        return self.answer(200, OBJECTS.delete(self.resource, obj)) if obj else self.refuse(404, "NotFound")


def reviewed(spec):
    """The tests' tokens are not signed: whose they are is what they say."""
    payload = spec["token"].split(".")[1]
    subject = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["sub"]
    return {"authenticated": True, "audiences": spec.get("audiences"),
            "user": {"username": subject, "groups": ["system:serviceaccounts"]}}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--crds", action="append", default=[], help="YAML of CustomResourceDefinitions")
    arguments = parser.parse_args()
    for path in arguments.crds:
        with open(path, encoding="utf-8") as file:
            for document in yaml.safe_load_all(file):
                if document and document["kind"] == "CustomResourceDefinition":
                    OBJECTS.define(document)
    Server(("127.0.0.1", arguments.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
