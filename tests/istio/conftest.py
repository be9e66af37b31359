"""What several of these files start: a mesh without a proxy, and pods that start under what a test gives them."""

import hashlib
import os
import sys
from pathlib import Path

import lab
import pytest


@pytest.fixture(scope="module")
def mesh():
    """The LLM and another host are known to it."""
    with lab.Mesh() as mesh:
        mesh.start(lab.other_host(), *lab.load(lab.EGRESS))
        yield mesh


@pytest.fixture(scope="module")
def web(mesh):
    """A server of files with the module; the module's checksum."""
    folder = lab.LAB / "web"
    folder.mkdir(exist_ok=True)
    module = Path(os.environ["WASM"]).read_bytes()
    (folder / "bursar.wasm").write_bytes(module)
    mesh.processes.start("web", [sys.executable, "-m", "http.server", "26600", "--bind", "127.0.0.1", "--directory", folder])
    lab.until(lambda: lab.answers("http://127.0.0.1:26600/"), "the web server")
    return hashlib.sha256(module).hexdigest()


@pytest.fixture
def pod(mesh):
    """start(document, …): a pod that starts with these objects; afterwards all are taken away again."""
    documents = []

    def start(*given, pod=lab.Pod(), is_awaited=True):
        documents.extend(given)
        lab.apply(*given)
        mesh.add_pod(pod)
        mesh.start_proxy(pod, environment=lab.REGISTRY, is_awaited=is_awaited)
        return mesh

    yield start
    mesh.stop_proxy()
    for document in documents:
        lab.delete(document)
