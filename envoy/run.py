"""What `make run` does: Envoy with bursar in front of an LLM, a short tour of real traffic, then serve until Ctrl-C.

Environment: UPSTREAM=https://host[:port] (else the bundled stand-in), OPENAI_API_KEY (for the tour with an UPSTREAM),
PORT, ADMIN_PORT, STANDIN_PORT, RUN_DIR (logs and the rendered configuration), ENVOY. `--tour-only` or TOUR_ONLY=1 ends after the tour; the exit status is then 0
only if everything that the tour is to show was really seen.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import render
import tour

RUN_DIR = Path(os.environ.get("RUN_DIR") or render.ROOT / "target" / "run")
WASM = render.ROOT / "target" / "bursar.wasm"
READY_SECONDS = 60
STOP_SECONDS = 5


class Failure(Exception):
    """Something that the person at the keyboard can mend: told in one message, without a traceback."""


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP."""


# --- what is asked for -------------------------------------------------------


def parse_upstream(text):
    """(scheme, host, port) of UPSTREAM=https://host[:port]."""
    form = "UPSTREAM must look like https://host or http://host:port"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise Failure(f"{form}: {error}") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise Failure(f"{form}, not {text!r}")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise Failure(f"{form}, without a path: clients send the path themselves (such as /v1/chat/completions)")
    if url.username is not None:
        raise Failure(f"{form}, without a user name: clients send their own credentials")
    return url.scheme, url.hostname, port or (443 if url.scheme == "https" else 80)


def claim_ports(wanted):
    """Check that each port is free; {name: default} becomes {name: port}. 0 asks for any free one."""
    sockets, ports = [], {}
    try:
        for name, default in wanted.items():
            text = os.environ.get(name) or str(default)
            if not (text.isascii() and text.isdigit() and int(text) <= 65535):
                raise Failure(f"{name}={text} is not a port number")
            # Envoy shares a port with whoever else allows it (SO_REUSEPORT), so a clash has to be found here.
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


# --- the processes -----------------------------------------------------------


class Children:
    """The processes started here. They get no terminal signals, only what `stop` sends them."""

    def __init__(self):
        self.running = []

    def start(self, name, command):
        log = RUN_DIR / f"{name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, cwd=render.ROOT, stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        process.name, process.log = name, log
        self.running.append(process)
        return process

    def wait_for_any(self):
        """Block until one of them ends, and name it."""
        while True:
            for process in self.running:
                if process.poll() is not None:
                    return process
            time.sleep(0.2)

    def stop(self):
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def log_tail(process, lines=20):
    """What the filter says of its configuration, if it refuses it, else the last lines of the log."""
    text = process.log.read_text(encoding="utf-8", errors="replace").splitlines()
    refused = [line[line.index("bursar refuses"):] for line in text if "bursar refuses" in line]
    if refused:
        return f"  | {refused[0]}"
    return "\n".join(f"  | {line[:300]}" for line in text[-lines:])


def answers(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_until_ready(process, port, path):
    deadline = time.monotonic() + READY_SECONDS
    while not answers(port, path):
        if process.poll() is not None:
            raise Failure(f"{process.name} ended with status {process.returncode}; "
                          f"from {shown(process.log)}:\n{log_tail(process)}")
        if time.monotonic() > deadline:
            raise Failure(f"{process.name} is not ready after {READY_SECONDS} s; "
                          f"the last lines of {process.log}:\n{log_tail(process)}")
        time.sleep(0.05)


def write_config(ports, upstream):
    access_log = RUN_DIR / "access.log"
    access_log.unlink(missing_ok=True)
    doc = render.load()
    render.set_ports(doc, ports["PORT"], ports["ADMIN_PORT"])
    render.set_wasm(doc, WASM)
    render.set_access_log(doc, access_log)
    if upstream is None:
        render.set_upstream(doc, "127.0.0.1", ports["STANDIN_PORT"])
    else:
        scheme, host, port = upstream
        render.set_upstream(doc, host, port, tls=scheme == "https")
        if scheme == "http":
            render.set_host(doc, host if port == 80 else f"{host}:{port}")
    config = RUN_DIR / "envoy.yaml"
    render.dump(doc, config)
    return config, access_log


def start(children, ports, upstream):
    """Start the stand-in (unless there is an upstream) and Envoy; returns the access log's path."""
    binary = render.envoy_binary()
    config, access_log = write_config(ports, upstream)
    if upstream is None:
        port = ports["STANDIN_PORT"]
        say(f"starting the stand-in LLM on 127.0.0.1:{port}")
        standin = children.start("standin", [sys.executable, str(render.HERE / "standin.py"), "--port", str(port)])
        wait_until_ready(standin, port, "/v1/models")
    say(f"starting Envoy on 127.0.0.1:{ports['PORT']} (compiling the filter takes it a few seconds)")
    # Hot restart would keep a second Envoy of this machine from starting.
    envoy = children.start("envoy", [binary, "-c", str(config), "--concurrency", "2", "--disable-hot-restart",
                                     "--file-flush-interval-msec", "200"])
    wait_until_ready(envoy, ports["ADMIN_PORT"], "/ready")
    return access_log


# --- the whole ---------------------------------------------------------------


def say(text):
    print(f"==> {text}", flush=True)


def shown(path):
    """A path as one would type it from the repository's root."""
    path = Path(path)
    return path.relative_to(render.ROOT) if path.is_relative_to(render.ROOT) else path


def go_on_tour(port, real_upstream):
    """True if everything was seen, False if not."""
    key = os.environ.get("OPENAI_API_KEY")
    if real_upstream and not key:
        say("the tour is skipped: UPSTREAM is a real LLM, and OPENAI_API_KEY is not set")
        return False
    say("a tour of the tenants in envoy/envoy.yaml")
    return tour.Tour(port, key if real_upstream else None).show()


def where_to_send(ports, access_log, real_upstream):
    print(f"\nSend your own requests to http://127.0.0.1:{ports['PORT']} - for example:\n")
    for tenant, what, times in tour.EXAMPLES:
        print(f"# {what}\n{tour.curl(ports['PORT'], tenant, times, real_upstream)}\n")
    print(f"metrics     http://127.0.0.1:{ports['ADMIN_PORT']}/stats/prometheus?filter=bursar")
    print(f"access log  {shown(access_log)}")
    print(f"Envoy's log {shown(RUN_DIR / 'envoy.log')}", flush=True)


def run(children, tour_only):
    upstream = parse_upstream(os.environ["UPSTREAM"]) if os.environ.get("UPSTREAM") else None
    wanted = {"PORT": 10000, "ADMIN_PORT": 9901}
    if upstream is None:
        wanted["STANDIN_PORT"] = 10001
    if not WASM.is_file():
        raise Failure(f"there is no filter at {shown(WASM)}: run `make wasm`")
    ports = claim_ports(wanted)
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    access_log = start(children, ports, upstream)
    seen_all = go_on_tour(ports["PORT"], upstream is not None)
    where_to_send(ports, access_log, upstream is not None)
    if tour_only:
        return 0 if seen_all else 1
    say("serving until Ctrl-C")
    ended = children.wait_for_any()
    ended.poll()
    raise Failure(f"{ended.name} ended with status {ended.returncode}; "
                  f"the last lines of {ended.log}:\n{log_tail(ended)}")


def on_signal(number, _frame):
    raise Stopped(number)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tour-only", action="store_true", help="end after the tour")
    tour_only = parser.parse_args().tour_only or os.environ.get("TOUR_ONLY", "") not in ("", "0")
    stop_signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in stop_signals:
        signal.signal(number, on_signal)
    children = Children()
    try:
        return run(children, tour_only)
    except (Failure, FileNotFoundError) as failure:
        print(f"make run: {failure}", file=sys.stderr)
        return 1
    except Stopped:
        return 1 if tour_only else 0
    finally:
        for number in stop_signals:  # a second Ctrl-C must not leave a child behind
            signal.signal(number, signal.SIG_IGN)
        children.stop()
        if children.running:
            say("stopped")


if __name__ == "__main__":
    sys.exit(main())
