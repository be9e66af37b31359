"""aimock, a stand-in for the providers' APIs that knows nothing of us, and its journal of what it was asked."""

import http.client
import json
import os
import shutil
import subprocess
from pathlib import Path

from .envoy import ROOT
from .upstream import TEST_ID
from .wait import until

PACKAGE = Path(os.environ.get("AIMOCK_DIR") or ROOT / "target/tools/node_modules/@copilotkit/aimock")
NODE = os.environ.get("NODE") or shutil.which("node")
PROMPT = "hello"
TEXT = "Hello! How can I help you today?"
INPUT, OUTPUT = 321, 45
USAGE = {"prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}
FIXTURES = {"fixtures": [{"match": {"userMessage": PROMPT}, "response": {"content": TEXT, "usage": USAGE}}]}


class Aimock:
    """The `llmock` command on a port of its own choice."""

    def __init__(self, folder):
        assert NODE, "node is not on PATH; set NODE=/path/to/node"
        assert PACKAGE.is_dir(), f"{PACKAGE} does not exist; set AIMOCK_DIR, or let `make test` set it up"
        fixtures = folder / "fixtures.json"
        fixtures.write_text(json.dumps(FIXTURES))
        self.out = folder / "aimock.log"
        with open(str(self.out), "wb") as out:
            self.process = subprocess.Popen([NODE, str(PACKAGE / "dist/cli.js"), "-p", "0", "-f", str(fixtures)],
                                            stdout=out, stderr=subprocess.STDOUT)
        self.port = until(self._port, "aimock to listen")

    def _port(self):
        assert self.process.poll() is None, self.out.read_text()
        text = self.out.read_text()
        return int(text.rsplit("http://127.0.0.1:", 1)[1].split()[0]) if "listening on" in text else None

    def journal(self, test_id):
        """What it was asked under this test id; an entry has `path`, `headers` and `body`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/__aimock/journal")
        entries = json.loads(connection.getresponse().read())
        connection.close()
        return [entry for entry in entries if entry["headers"].get(TEST_ID) == test_id]

    def stop(self):
        # It has nothing to save, and would wait for connections that Envoy keeps.
        self.process.kill()
        self.process.wait()
