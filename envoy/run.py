"""What `make run` does: Envoy with bursar in front of an LLM, a short tour of real traffic, then serve until Ctrl-C.

Environment:
  UPSTREAM=https://host[:port]   a real LLM in place of the bundled stand-in
  OPENAI_API_KEY                 the key that the tour sends to an UPSTREAM
  CONFIG=my.json                 a plugin configuration in place of the one in envoy/envoy.yaml
  PORT, ADMIN_PORT, REPORT_PORT, STANDIN_PORT   where to listen (10000, 9901, 9902, 10001; 0 takes any free port)
  RUN_DIR                        for logs and the finished envoy.yaml (target/run)
  ENVOY=/path/to/envoy           the Envoy to start
  GLOBAL=1                       two Envoys with one budget in a Redis (see envoy/shared.py); these also use the ports
                                 SECOND_PORT, SECOND_ADMIN_PORT and REDIS_PORT (10002, 9903, 16379)
  TOUR_ONLY=1                    end after the tour, as --tour-only does; the exit status is 0 only if the tour
                                 showed all that it should show
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

import render
import sample
import shared
import tour
import reach
from processes import Children, Failure, claim_ports, log_tail, shown, wait_until_ready, warnings

RUN_DIR = Path(os.environ.get("RUN_DIR") or render.ROOT / "target" / "run")
WASM = render.ROOT / "target" / "bursar.wasm"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Seconds that the job may take to notice that its processes have ended, while it waits for one of them or for a timer.
LEAVE_SECONDS = 1


def say(text):
    print(f"==> {text}", flush=True)


# --- what is to run ----------------------------------------------------------


def read_config(path):
    """The file of CONFIG as text, and as JSON. Only a file that is not a JSON object is refused here: bursar itself reports all other
    faults."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"CONFIG={path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Failure(f"CONFIG={path} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise Failure(f"CONFIG={path} is no JSON object")
    return text, config


def write_envoy_yaml(ports, upstream, config_text, config):
    """Write envoy.yaml with these parts replaced; return its path and the access log's path."""
    access_log = RUN_DIR / "access.log"
    access_log.unlink(missing_ok=True)
    doc = render.load(report=True)
    render.set_ports(doc, ports["PORT"], ports["ADMIN_PORT"])
    render.set_report_port(doc, ports["REPORT_PORT"])
    render.set_wasm(doc, WASM)
    render.set_access_log(doc, access_log)
    if config_text is not None:
        render.set_plugin_config(doc, config_text)
        render.wasm_config(doc)["allow_on_headers_stop_iteration"] = config.get("hold_headers") is True
    if upstream is None:
        render.set_upstream(doc, "127.0.0.1", ports["STANDIN_PORT"])
    else:
        render.set_upstream(doc, upstream.host, upstream.port, tls=upstream.tls)
        if not upstream.tls:
            render.set_host(doc, upstream.host if upstream.port == 80 else f"{upstream.host}:{upstream.port}")
    path = RUN_DIR / "envoy.yaml"
    render.dump(doc, path)
    return path, access_log


def start(children, ports, upstream, envoy_yaml):
    binary = render.envoy_binary()
    if upstream is None:
        port = ports["STANDIN_PORT"]
        say(f"starting the stand-in LLM on 127.0.0.1:{port}")
        standin = children.start("standin", [sys.executable, str(render.HERE / "standin.py"), "--port", str(port)])
        wait_until_ready(standin, port, "/v1/models")
    say(f"starting Envoy on 127.0.0.1:{ports['PORT']} (compiling the filter takes a few seconds)")
    # With hot restart enabled, a second Envoy could not start on this machine.
    envoy = children.start("envoy", [binary, "-c", str(envoy_yaml), "--concurrency", "2", "--disable-hot-restart",
                                     "--file-flush-interval-msec", "200"])
    wait_until_ready(envoy, ports["ADMIN_PORT"], "/ready")
    for warning in warnings(envoy.log):
        say(f"bursar warns: {warning}")


# --- the tour ----------------------------------------------------------------


def choose_tour(port, upstream, config):
    """The tour that suits the configuration, and the reason why the tour cannot run (None if it can)."""
    key = os.environ.get("OPENAI_API_KEY") if upstream else None
    if config is None:
        chosen, obstacle = tour.Tour(port, key), None
    else:
        chosen = sample.Sample(port, key, config, few=upstream is not None)
        obstacle = chosen.obstacle
    if upstream and not key:
        obstacle = obstacle or f"{upstream} may want a key, and OPENAI_API_KEY is not set"
    return chosen, obstacle


def take_tour(chosen, obstacle):
    """Run the tour; True if it showed everything that it should show."""
    if obstacle:
        say(f"the tour is skipped: {obstacle}")
        return False
    say(chosen.title)
    try:
        return chosen.show()
    except tour.UpstreamRefused as refused:
        say(f"the tour ends early: {refused}")
        return False


def where_to_send(ports, access_log, examples):
    print(f"\nSend requests of your own to http://127.0.0.1:{ports['PORT']}{' - for example:' if examples else ''}\n")
    for what, command in examples:
        print(f"# {what}\n{command}\n")
    print(f"what is left http://127.0.0.1:{ports['REPORT_PORT']}/")
    print(f"metrics      http://127.0.0.1:{ports['ADMIN_PORT']}/stats/prometheus?filter=bursar")
    print(f"access log   {shown(access_log)}")
    print(f"Envoy's log  {shown(RUN_DIR / 'envoy.log')}", flush=True)


# --- the whole ---------------------------------------------------------------


def run(children, tour_only):
    """Run everything up to the end. Returns the exit status, unless a signal ends the run first."""
    if os.environ.get("GLOBAL", "") not in ("", "0"):
        if os.environ.get("CONFIG") or os.environ.get("UPSTREAM"):
            raise Failure("GLOBAL=1 has a configuration and an upstream of its own: leave out CONFIG and UPSTREAM")
        return shared.run(children, RUN_DIR, tour_only)
    upstream = reach.parse(os.environ["UPSTREAM"]) if os.environ.get("UPSTREAM") else None
    text, config = read_config(os.environ["CONFIG"]) if os.environ.get("CONFIG") else (None, None)
    if not WASM.is_file():
        raise Failure(f"there is no filter at {shown(WASM)}: run `make wasm`")
    wanted = {"PORT": 10000, "ADMIN_PORT": 9901, "REPORT_PORT": 9902}
    if upstream is None:
        wanted["STANDIN_PORT"] = 10001
    else:
        say(f"connecting to {upstream}")
        reach.check(upstream)
    ports = claim_ports(wanted)
    envoy_yaml, access_log = write_envoy_yaml(ports, upstream, text, config)
    start(children, ports, upstream, envoy_yaml)
    chosen, obstacle = choose_tour(ports["PORT"], upstream, config)
    try:
        seen_all = take_tour(chosen, obstacle)
    except tour.Unreachable as unreachable:
        raise Failure(f"{upstream or 'the stand-in LLM'} cannot be reached: {unreachable}") from None
    where_to_send(ports, access_log, chosen.examples(after_tour=seen_all, with_key=upstream is not None))
    if tour_only:
        return 0 if seen_all else 1
    say("serving until Ctrl-C")
    ended = children.wait_for_any()
    raise Failure(f"{ended.name} ended with status {ended.returncode}; "
                  f"the last lines of {shown(ended.log)}:\n{log_tail(ended)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tour-only", action="store_true", help="end after the tour")
    tour_only = parser.parse_args().tour_only or os.environ.get("TOUR_ONLY", "") not in ("", "0")
    RUN_DIR.mkdir(parents=True, exist_ok=True)
    children = Children(RUN_DIR)
    ends = EndOfRun(tour_only)
    job = threading.Thread(target=work, args=(children, tour_only, ends), daemon=True)
    job.start()
    end = ends.wait()
    children.stop()
    job.join(LEAVE_SECONDS)
    if isinstance(end, Failure):
        print(f"make run: {end}", file=sys.stderr, flush=True)
    if children.running:
        say("stopped")
    if isinstance(end, BaseException) and not isinstance(end, Failure):
        raise end
    return end if isinstance(end, int) else 1


def work(children, tour_only, ends):
    try:
        ends.report(run(children, tour_only))
    except FileNotFoundError as error:
        ends.report(Failure(str(error)))
    except BaseException as error:
        ends.report(error)


class EndOfRun:
    """Waits for the first of two events: the job's own end, or a signal. Signals interrupt nothing: each writes a byte to a
    socket on which the main thread waits. So no signal is lost, and a second signal has no effect."""

    JOB = b"\0"

    def __init__(self, tour_only):
        self.after_a_signal = 1 if tour_only else 0
        self.of_the_job = None
        self._read, self._write = socket.socketpair()
        self._write.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)

    def report(self, end):
        """Note how the job ended: with an exit status, or with an exception."""
        self.of_the_job = end
        self._write.send(self.JOB)

    def wait(self):
        return self.of_the_job if self._read.recv(1) == self.JOB else self.after_a_signal


if __name__ == "__main__":
    sys.exit(main())
