"""The processes that `make run` starts, the ports that they take, and how they end."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import render

READY_SECONDS = 60
STOP_SECONDS = 5


class Failure(Exception):
    """An error that the user can fix; its message is printed without a traceback."""


def shown(path):
    """A path relative to the repository's root, as a user would type it."""
    path = Path(path)
    return path.relative_to(render.ROOT) if path.is_relative_to(render.ROOT) else path


class Children:
    """The processes that this script has started. They get no signals from the terminal, but only those that `stop` sends."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []
        self.stopped = False
        self._lock = threading.Lock()   # nothing is started after `stop`, or while it runs

    def start(self, name, command):
        log = self.folder / f"{name}.log"
        with self._lock, log.open("wb") as out:
            if self.stopped:
                raise Failure(f"{name} is not started: everything ends")
            process = subprocess.Popen(command, cwd=render.ROOT, stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            process.name, process.log = name, log
            self.running.append(process)
        return process

    def wait_for_any(self):
        """Block until one of the processes ends, and return its name."""
        while True:
            for process in self.running:
                if process.poll() is not None:
                    return process
            time.sleep(0.2)

    def stop(self):
        """End all processes, the last one first, so that Envoy ends before its upstream."""
        with self._lock:
            self.stopped = True
            for process in reversed(self.running):
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def log_tail(process, lines=20):
    """The filter's error about its configuration, if it refuses that, else the last lines of the log."""
    text = process.log.read_text(encoding="utf-8", errors="replace").splitlines()
    refused = [line[line.index("bursar refuses"):] for line in text if "bursar refuses" in line]
    if refused:
        return f"  | {refused[0]}"
    return "\n".join(f"  | {line[:300]}" for line in text[-lines:])


def warnings(log):
    """The filter's warnings about its configuration, each of them once, although every worker logs them."""
    said = "bursar's configuration: "
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(dict.fromkeys(line[line.index(said) + len(said):] for line in text if said in line))


def wait_until_ready(process, port, path):
    """Wait until the server answers 200 to GET `path`."""
    deadline = time.monotonic() + READY_SECONDS
    while not _answers(port, path):
        if process.poll() is not None:
            raise Failure(f"{process.name} ended with status {process.returncode}; "
                          f"from {shown(process.log)}:\n{log_tail(process)}")
        if time.monotonic() > deadline:
            raise Failure(f"{process.name} is not ready after {READY_SECONDS} s; "
                          f"the last lines of {shown(process.log)}:\n{log_tail(process)}")
        time.sleep(0.05)


def _answers(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def claim_ports(wanted):
    """Check that each port is free; {name: default} becomes {name: port}. 0 takes any free one."""
    sockets, ports = [], {}
    try:
        for name, default in wanted.items():
            text = os.environ.get(name) or str(default)
            if not (text.isascii() and text.isdigit() and int(text) <= 65535):
                raise Failure(f"{name}={text} is not a port number")
            # Envoy shares its port with other processes that allow this (SO_REUSEPORT), so a clash has to be detected here.
            probe = socket.socket()
            sockets.append(probe)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", int(text)))
                probe.listen(1)
            except OSError as error:
                raise Failure(f"port {text} cannot be used ({error.strerror}): "
                              f"stop what listens there, or choose another: {name}=12345 make run") from None
            ports[name] = probe.getsockname()[1]
    finally:
        for probe in sockets:
            probe.close()
    return ports
