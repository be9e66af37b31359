"""`make run`: what it prints, how it ends, and that it leaves nothing behind."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from harness import certificates
from harness.envoy import ROOT, render
from harness.wait import until

SECONDS = 120
OWN = {
    "tenant": {"from": [{"peer_uri_san": True}, {"header": "x-team"}]},
    "tiers": [{"name": "best", "model": "large"}, {"name": "light", "model": "little", "below": 0.5}],
    "tenants": {"red": {"budget": {"initial_budget": 2_000, "window": "day"}}, "blue": {}},
}


class Run:
    """`envoy/run.py` in a process of its own; `lines` grow while it runs."""

    def __init__(self, folder, *words, **environment):
        self.folder = folder
        env = dict(os.environ, PORT="0", ADMIN_PORT="0", REPORT_PORT="0", STANDIN_PORT="0", ENVOY=render.envoy_binary(), RUN_DIR=str(folder))
        for name in ("UPSTREAM", "CONFIG", "OPENAI_API_KEY", "TOUR_ONLY"):
            env.pop(name, None)
        self.process = subprocess.Popen([sys.executable, str(ROOT / "envoy/run.py"), *words], env=dict(env, **environment),
                                        cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.children = set()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.children |= children_of(self.process.pid)
            self.lines.append(line.rstrip("\n"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(SECONDS)

    def wait_for(self, words):
        until(lambda: any(words in line for line in self.lines) or self.process.poll() is not None, words, SECONDS)
        assert any(words in line for line in self.lines), self.printed

    @property
    def printed(self):
        return "\n".join(self.lines)

    def end(self):
        """(exit status, what was printed); fails if a process was left."""
        self.process.wait(SECONDS)
        self.reader.join(SECONDS)
        left = [child for child in self.children if is_running(child)] + naming(str(self.folder))
        for port in re.findall(r"stand-in LLM on 127\.0\.0\.1:(\d+)", self.printed):
            left += naming(f"--port {port}")
        assert not left, f"left running: {left}\n{self.printed}"
        return self.process.returncode, self.printed


def processes(*columns):
    out = subprocess.run(["ps", "-A", *(word for name in columns for word in ("-o", f"{name}="))], check=True,
                         capture_output=True, text=True).stdout
    return [line.split(None, len(columns) - 1) for line in out.splitlines()]


def children_of(parent):
    """[(pid, when it was started)]: a pid alone may be another's by and by."""
    return {(int(pid), started) for pid, ppid, started in processes("pid", "ppid", "lstart") if int(ppid) == parent}


def is_running(child):
    return any((int(pid), started) == child for pid, started in processes("pid", "lstart"))


def naming(words):
    return [row for row in processes("pid", "args") if len(row) == 2 and words in row[1]]


def run(folder, *words, **environment):
    with Run(folder, *words, **environment) as started:
        return started.end()


@contextlib.contextmanager
def a_port(answer=None, context=None):
    """A port on which nobody listens, or one where each request gets this answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        if answer is None:
            server.close()
            yield port
            return

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=respond, args=(connection,), daemon=True).start()

        def respond(connection):
            with contextlib.suppress(OSError), connection:
                stream = context.wrap_socket(connection, server_side=True) if context else connection
                if stream.recv(1 << 16):
                    stream.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield port
        server.shutdown(socket.SHUT_RDWR)


# --- the tour ----------------------------------------------------------------


def test_the_tour_passes_against_the_bundled_stand_in(tmp_path):
    status, printed = run(tmp_path, "--tour-only")
    assert status == 0, printed
    for word in ("admit", "downgrade", "throttle", "gpt-4o-mini", "429", "globex has little left after the tour"):
        assert word in printed, printed


def test_the_access_log_has_the_time_and_the_request_id_also_of_what_is_not_metered(tmp_path):
    with Run(tmp_path) as started:
        started.wait_for("serving until Ctrl-C")
        port = int(re.search(r"requests of your own to http://127\.0\.0\.1:(\d+)", started.printed)[1])
        for headers in ({}, {"x-request-id": 'quo"ted\\'}):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
            connection.request("GET", "/v1/models", headers=headers)
            assert connection.getresponse().status == 200
            connection.close()
        log = Path(tmp_path, "access.log")
        until(lambda: log.read_text().count("/v1/models") == 2, "the access log", SECONDS)
        started.process.send_signal(signal.SIGTERM)
        assert started.end()[0] == 0
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    decisions = {json.loads(entry["bursar"] or "{}").get("decision") for entry in entries}
    assert decisions == {"admit", "downgrade", "throttle", None}
    for entry in entries:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"]), entry
        assert abs((datetime.fromisoformat(entry["time"].replace("Z", "+00:00")) - datetime.now().astimezone()).total_seconds()) < 600
        assert entry["request_id"], entry
    assert len({entry["request_id"] for entry in entries}) == len(entries)


# --- an upstream that does not answer, or answers with an error ---


def test_an_upstream_that_cannot_be_reached_is_named_with_the_error_and_everything_ends(tmp_path):
    with a_port() as port:
        status, printed = run(tmp_path, UPSTREAM=f"http://127.0.0.1:{port}", OPENAI_API_KEY="k")
    assert status == 1 and f"UPSTREAM http://127.0.0.1:{port} cannot be reached: Connection refused" in printed, printed
    is_silent_about_what_did_not_happen(printed)


def test_an_upstream_whose_name_is_unknown_is_named_with_the_error(tmp_path):
    status, printed = run(tmp_path, UPSTREAM="https://llm.invalid", OPENAI_API_KEY="k")
    assert status == 1 and "UPSTREAM https://llm.invalid:443 cannot be reached: " in printed, printed
    is_silent_about_what_did_not_happen(printed)


def test_an_upstream_whose_certificate_is_not_trusted_is_named_with_the_error(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.Authority(tmp_path).issue("llm", "IP:127.0.0.1"))
    with a_port(b"-", context) as port:
        status, printed = run(tmp_path, UPSTREAM=f"https://127.0.0.1:{port}", OPENAI_API_KEY="k")
    assert status == 1 and f"UPSTREAM https://127.0.0.1:{port} cannot be reached: " in printed, printed
    assert "certificate" in printed, printed


def test_an_upstream_that_hangs_up_ends_the_tour_with_envoys_words(tmp_path):
    # It accepts the connection and closes it: only Envoy sees that no answer comes.
    with a_port(b"") as port:
        status, printed = run(tmp_path, UPSTREAM=f"http://127.0.0.1:{port}", OPENAI_API_KEY="k")
    assert status == 1, printed
    assert f"http://127.0.0.1:{port} cannot be reached: Envoy answers 503: upstream connect error" in printed, printed
    is_silent_about_what_did_not_happen(printed)


def test_an_error_of_the_upstream_ends_the_tour_with_its_words(tmp_path):
    body = b'{"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}}'
    answer = b"HTTP/1.1 401 No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)
    with a_port(answer) as port:
        status, printed = run(tmp_path, "--tour-only", UPSTREAM=f"http://127.0.0.1:{port}", OPENAI_API_KEY="k")
    assert status == 1 and "the upstream answered acme's request with 401: Incorrect API key provided." in printed, printed
    assert "Send requests of your own" in printed and "after the tour: a lighter" not in printed, printed


def is_silent_about_what_did_not_happen(printed):
    for words in ("None, retry-after", "after the tour", "NOT SEEN", "Send requests", "serving"):
        assert words not in printed, printed


def test_without_a_key_the_tour_of_a_real_llm_is_skipped_and_the_reason_given(tmp_path):
    with a_port(b"-") as port:
        status, printed = run(tmp_path, "--tour-only", UPSTREAM=f"http://127.0.0.1:{port}")
    assert status == 1 and "the tour is skipped: " in printed and "OPENAI_API_KEY is not set" in printed, printed
    assert "globex has 4000 tokens a day" in printed and "after the tour: a lighter" not in printed, printed


# --- signals -----------------------------------------------------------------


@pytest.mark.parametrize("signals", [
    (signal.SIGINT,), (signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)],
    ids=lambda signals: "+".join(each.name for each in signals))
@pytest.mark.parametrize("moment", ["starting the stand-in", "starting Envoy", "a tour of", "serving until Ctrl-C"])
def test_signals_at_nearly_the_same_time_end_everything_once(tmp_path, moment, signals):
    with Run(tmp_path) as started:
        started.wait_for(moment)
        for number in signals:
            started.process.send_signal(number)
        status, printed = started.end()
    assert status == 0 and printed.endswith("==> stopped") and "Traceback" not in printed, printed


# --- a configuration of one's own ---


def own(folder, config):
    path = folder / "my.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return str(path)


@pytest.mark.parametrize("hold_headers", [True, False])
def test_the_tour_adapts_to_a_configuration_of_ones_own(tmp_path, hold_headers):
    status, printed = run(tmp_path, "--tour-only", CONFIG=own(tmp_path, dict(OWN, hold_headers=hold_headers)))
    assert status == 0 and "8 requests each of red, blue, for large" in printed, printed
    rows = [line.split()[:6] for line in printed.splitlines()]
    assert ["red", "large", "large", "best", "admit", "-"] in rows, printed
    assert ["red", "large", "little", "light", "downgrade", "budget_low"] in rows, printed
    assert ["red", "large", "-", "light", "throttle", "budget_exhausted"] in rows, printed
    assert ["blue", "large", "large", "best", "admit", "-"] in rows, printed
    assert "-H 'x-team: red'" in printed and "globex" not in printed and "acme" not in printed, printed


@pytest.mark.parametrize("change,reason", [
    ({"tenant": {"from": [{"peer_uri_san": True}]}}, "no header names the tenant"),
    ({"tenants": {}}, "names no tenants"),
    ({"tiers": None}, "names no tiers"),
])
def test_where_the_tour_does_not_suit_the_configuration_it_is_skipped_and_the_reason_given(tmp_path, change, reason):
    status, printed = run(tmp_path, "--tour-only", CONFIG=own(tmp_path, {
        key: value for key, value in dict(OWN, **change).items() if value is not None}))
    assert status == 1 and re.search(f"the tour is skipped: .*{reason}", printed), printed
    assert "curl" not in printed and "globex" not in printed, printed


def test_what_bursar_warns_of_in_a_configuration_is_printed_once(tmp_path):
    _, printed = run(tmp_path, "--tour-only", CONFIG=own(tmp_path, {}))
    assert printed.count("bursar warns: tenants: there are none") == 1, printed


@pytest.mark.parametrize("config,reason", [
    ({"plans": {"gold": {"budget": {"initial_budget": 1, "window": "fortnight"}}}}, "plans.gold.budget.window: `fortnight`"),
    ("{", "is no JSON"),
    ("[]", "is no JSON object"),
])
def test_a_configuration_that_cannot_be_used_is_refused_with_its_reason(tmp_path, config, reason):
    status, printed = run(tmp_path, CONFIG=own(tmp_path, config))
    assert status == 1 and reason in printed and "Traceback" not in printed, printed


def test_a_configuration_that_is_not_there_is_named(tmp_path):
    status, printed = run(tmp_path, CONFIG="no/such.json")
    assert status == 1 and "CONFIG=no/such.json cannot be read: No such file" in printed, printed


def test_two_proxies_with_one_budget_take_no_other_configuration_or_upstream(tmp_path):
    for other in ({"CONFIG": "my.json"}, {"UPSTREAM": "http://127.0.0.1:9"}):
        status, printed = run(tmp_path, GLOBAL="1", **other)
        assert status == 1 and "leave out CONFIG and UPSTREAM" in printed, printed
