"""aimock, a stand-in for the OpenAI API that knows nothing of us, driven by the unmodified openai SDK."""

import openai
import pytest

from harness.aimock import INPUT, OUTPUT, PROMPT, TEXT, Aimock
from harness.config import budget, plugin_config
from harness.envoy import render
from harness.rig import MODES
from harness.upstream import TEST_ID

HELLO = [{"role": "user", "content": PROMPT}]
INITIAL = 100_000
TOTAL = INPUT + OUTPUT


@pytest.fixture(scope="module")
def aimock(tmp_path_factory):
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
        assert answer.usage.total_tokens == TOTAL
    else:
        chunks = list(answer)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == TEXT
        assert all(chunk.choices for chunk in chunks) == ("stream_options" not in options)
    entry = rig.envoy.logged(test_id)
    assert (entry["charged"], entry["settled_by"]) == (TOTAL, "usage")
    assert rig.remaining(tenant) == INITIAL - TOTAL


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
    assert rig.envoy.logged(second)["charged"] == TOTAL
