"""`docker pull` of the image, and containerd's, from a real registry."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
IMAGE = ROOT / "target/image"
CLIENTS = ROOT / "target/tools/clients"
NEEDED = ("docker", "dockerd", "containerd", "ctr", "runc", "docker-registry", "unshare", "ip")


@pytest.fixture(scope="module")
def path():
    path = f"{CLIENTS}{os.pathsep}{os.environ['PATH']}"
    missing = [name for name in NEEDED if not shutil.which(name, path=path)]
    if os.getuid() != 0 or missing:
        pytest.skip(f"it needs root and {missing or 'no more'}")
    return path


@pytest.fixture(scope="module")
def pulled(path, tmp_path_factory):
    done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private",
                           sys.executable, HERE / "clients.py", tmp_path_factory.mktemp("clients"), IMAGE / "oci"],
                          capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("client", ["docker", "containerd"])
def test_what_is_pulled_is_what_was_made(pulled, client):
    module = hashlib.sha256((ROOT / "target/bursar.wasm").read_bytes()).hexdigest()
    assert pulled[client] == {"digest": (IMAGE / "digest").read_text(encoding="utf-8").strip(), "module": module}
