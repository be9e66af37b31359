"""aimock, a stand-in for the OpenAI API that knows nothing of us, driven by the unmodified openai SDK."""

import http.client
import json
import os
import shutil
import subprocess
from pathlib import Path

import openai
import pytest

from harness.config import budget, plugin_config
from harness.envoy import ROOT, render
from harness.rig import MODES
from harness.upstream import TEST_ID
from harness.wait import until

PACKAGE = Path(os.environ.get("AIMOCK_DIR") or ROOT / "target/tools/node_modules/@copilotkit/aimock")
NODE = os.environ.get("NODE") or shutil.which("node")
USAGE = {"prompt_tokens": 321, "completion_tokens": 45, "total_tokens": 366}
FIXTURES = {"fixtures": [{"match": {"userMessage": "hello"},
                          "response": {"content": "Hello! How can I help you today?", "usage": USAGE}}]}
HELLO = [{"role": "user", "content": "hello"}]
INITIAL = 100_000


class Aimock:
    """The `llmock` command on a port of its own choice, and its journal."""

    def __init__(self, folder):
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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("GET", "/__aimock/journal")
        entries = json.loads(connection.getresponse().read())
        connection.close()
        return [entry for entry in entries if entry["headers"].get(TEST_ID) == test_id]

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


@pytest.fixture(scope="module")
def aimock(tmp_path_factory):
    assert NODE, "node is not on PATH; set NODE=/path/to/node"
    assert PACKAGE.is_dir(), f"{PACKAGE} does not exist; set AIMOCK_DIR, or let `make test` set it up"
    mock = Aimock(tmp_path_factory.mktemp("aimock"))
    yield mock
    mock.stop()


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request, aimock):
    def use_aimock(doc):
        render.set_upstream(doc, "127.0.0.1", aimock.port)

    plans = {"gold": {"budget": budget(INITIAL)}, "low": {"budget": budget(INITIAL), "low_water_mark": 1.0}}
    return start_rig(plugin_config(plans), mode=request.param, change=use_aimock)


def create(rig, tenant, test_id, **options):
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{rig.envoy.port}/v1", api_key="test",
                           default_headers={"x-tenant-id": tenant, TEST_ID: test_id})
    return client.chat.completions.create(model="gpt-4o", messages=HELLO, **options)


@pytest.mark.parametrize("options", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}],
                         ids=["json", "sse", "sse_usage"])
def test_usage_is_settled_to_the_token(rig, options):
    tenant, test_id = rig.tenant("gold"), rig.new_id()
    answer = create(rig, tenant, test_id, **options)
    if "stream" not in options:
        assert answer.usage.total_tokens == 366
    else:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == "Hello! How can I help you today?"
        assert all(chunk.choices for chunk in chunks) == ("stream_options" not in options)
    entry = rig.envoy.logged(test_id)
    assert (entry["charged"], entry["settled_by"]) == (366, "usage")
    assert rig.remaining(tenant) == INITIAL - 366


@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_a_downgrade_stands_in_aimocks_journal(rig, aimock, stream):
    tenant, first, second = rig.tenant("low"), rig.new_id(), rig.new_id()
    create(rig, tenant, first)
    rig.envoy.logged(first)
    answer = create(rig, tenant, second, stream=stream)
    model = list(answer)[0].model if stream else answer.model
    assert model == "gpt-4o-mini"
    assert [entry["body"]["model"] for entry in aimock.journal(first)] == ["gpt-4o"]
    assert [entry["body"]["model"] for entry in aimock.journal(second)] == ["gpt-4o-mini"]
    assert rig.envoy.logged(second)["charged"] == 366
