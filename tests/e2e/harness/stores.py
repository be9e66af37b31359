"""A real Redis or Valkey, as `make stores` sets them up."""

import os
import re
import signal
import socket
import subprocess

import shared

from .envoy import ROOT
from .wait import until

SERVERS = ("redis-server", "valkey-server")


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


class Store:
    """One server on a port of its own. What it keeps is gone when it ends."""

    def __init__(self, server, folder, *options, conf=None, env=None):
        binary = ROOT / "target" / "tools" / "stores" / server
        assert binary.exists(), f"there is no {server} to test with: run `make stores` first"
        self.port = free_port()
        self.command = [str(binary), *([str(conf)] if conf else []), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder), *options]
        self.log = open(folder / "store.log", "wb")
        self.process = None
        self.env = {**os.environ, **(env or {})}
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=self.env)
        until(self._answers, "the store to answer")

    def _answers(self):
        assert self.process.poll() is None, f"the store ended with {self.process.returncode}"
        try:
            return self.call(command("PING")).endswith((b"+PONG\r\n", b"-NOAUTH Authentication required.\r\n"))
        except ConnectionError:
            return False

    def call(self, body):
        """Sends a body without any proxy, and says what came back."""
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(body)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65_536), b""))

    def freeze(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.kill()
        self.log.close()


def command(*words):
    """A command as its protocol has it."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def cluster(name, port, **more):
    """A cluster that carries a request's body to the store as it is, and what comes back as the answer's: the one that ships."""
    cluster = dict(shared.cluster(port), name=name, **more)
    cluster["load_assignment"]["cluster_name"] = name
    return cluster


def shipped_user(password, name="bursar"):
    """The words of a user that ships, with this password."""
    (line,) = re.findall(f"^user ({name} .*)$", (ROOT / "envoy" / "redis.conf").read_text(encoding="utf-8"), re.MULTILINE)
    return line.replace(">change-me", f">{password}").split()


def script(name="script"):
    """A script of src/lease as the module has it: without comments, which are lines of their own, and without indentation."""
    text = (ROOT / "src" / "lease" / f"{name}.lua").read_text()
    lines = (line.lstrip(" ") for line in text.splitlines(keepends=True))
    return "".join(line for line in lines if not line.startswith("-"))
