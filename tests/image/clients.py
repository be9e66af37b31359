"""The image in a real registry, pulled by who pulls it in production: Docker, and containerd as a kubelet has it.

    unshare --mount --net --pid --fork --kill-child --propagation private python clients.py FOLDER LAYOUT

In namespaces of its own, which end with it: nothing of this machine's Docker or network is touched. Prints one JSON object: of each
client the digest that it names, and the SHA-256 of the image's plugin.wasm as it has it. Needs root; PATH has crane, docker,
dockerd, containerd, ctr and docker-registry.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

DEADLINE_SECONDS = 60
REGISTRY = "127.0.0.1:5000"
IMAGE = f"{REGISTRY}/bursar:1"
DOCKER = {"DOCKER_HOST": "unix:///run/docker.sock"}


def run(*command):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, **DOCKER}).stdout


def start(folder, name, *command, ask):
    """Starts a server and returns when `ask` succeeds."""
    with open(folder / f"{name}.log", "w", encoding="utf-8") as log:
        process = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log)
    end = time.monotonic() + DEADLINE_SECONDS
    while subprocess.run(ask, capture_output=True, env={**os.environ, **DOCKER}).returncode != 0:
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"{name} does not answer:\n" + (folder / f"{name}.log").read_text(encoding="utf-8")[-3000:])
        time.sleep(0.05)   # between two questions, not for a state to come


def checksum(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def by_docker(folder):
    start(folder, "dockerd", "dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false", "--storage-driver=vfs",
          f"--data-root={folder / 'docker'}", "--exec-root=/run/docker-exec", f"--host={DOCKER['DOCKER_HOST']}",
          ask=["docker", "version"])
    run("docker", "pull", IMAGE)
    (named,) = json.loads(run("docker", "image", "inspect", IMAGE))[0]["RepoDigests"]
    container = run("docker", "create", IMAGE, "none").strip()
    run("docker", "cp", f"{container}:/plugin.wasm", folder / "docker.wasm")
    return {"digest": named.partition("@")[2], "module": checksum(folder / "docker.wasm")}


def by_containerd(folder):
    ctr = ["ctr", "--address", "/run/ctr.sock"]
    start(folder, "containerd", "containerd", "--root", folder / "containerd", "--state", "/run/ctr", "--address", "/run/ctr.sock",
          ask=[*ctr, "version"])
    run(*ctr, "images", "pull", "--plain-http", "--snapshotter", "native", IMAGE)
    (line,) = [line.split() for line in run(*ctr, "images", "ls", f"name=={IMAGE}").splitlines() if line.startswith(IMAGE)]
    mounted = folder / "mounted"
    mounted.mkdir()
    run(*ctr, "images", "mount", "--snapshotter", "native", IMAGE, mounted)
    return {"digest": line[2], "module": checksum(mounted / "plugin.wasm")}


def main():
    folder, layout = Path(sys.argv[1]), sys.argv[2]
    run("ip", "link", "set", "lo", "up")
    for place in ("/run", "/sys/fs/cgroup"):
        run("mount", "-t", "tmpfs", "tmpfs", place)
    configuration = {"version": 0.1, "http": {"addr": REGISTRY}, "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}}}
    (folder / "registry.yaml").write_text(json.dumps(configuration), encoding="utf-8")
    start(folder, "registry", "docker-registry", "serve", folder / "registry.yaml",
          ask=["crane", "catalog", REGISTRY])
    run("crane", "push", layout, IMAGE)
    print(json.dumps({"docker": by_docker(folder), "containerd": by_containerd(folder)}))


main()
