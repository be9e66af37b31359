"""The harness itself, with the filter taken out: what it records is what went over the wire."""

import pytest

from harness import answers
from harness.rig import chat_body


@pytest.fixture(scope="module")
def rig(start_rig):
    return start_rig(None)


def test_a_request_is_recorded_as_it_came(rig):
    response = rig.chat("acme", model="gpt-4o")
    request = rig.seen(response)
    assert response.status == 200
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.body == chat_body(model="gpt-4o")
    assert request.header("x-tenant-id") == "acme"
    assert request.surplus == b""


def test_an_honest_upstream_reports_the_usage_it_was_told(rig):
    before = rig.upstream.reported["prompt"]
    response = rig.chat("acme", usage=(70, 7))
    assert response.json()["usage"]["prompt_tokens"] == 70
    assert rig.upstream.reported["prompt"] == before + 70


def test_a_stream_reports_usage_only_if_asked(rig):
    silent = rig.chat("acme", stream=True)
    asked = rig.chat("acme", stream=True, stream_options={"include_usage": True})
    assert all("usage" not in event for event in silent.events()[:-1])
    assert asked.events()[-2]["usage"]["prompt_tokens"] == 10
    assert asked.events()[-1] == "[DONE]"


def test_each_part_of_an_answer_is_a_read_of_its_own(rig):
    seen = []

    def look():
        seen.append(rig.envoy.read_from_upstream())

    response = rig.chat("acme", answer=answers.Answer([look, b"a" * 100, look, b"b" * 50, look, b"c"], edges=True))
    assert response.body == b"a" * 100 + b"b" * 50 + b"c"
    assert [after - before for before, after in zip(seen, seen[1:])] == [100, 50]


def test_an_answer_can_be_cut(rig):
    response = rig.chat("acme", answer=answers.Answer(b"half", length=8, then="close"))
    assert response.cut
    assert rig.log(response)["details"].startswith("upstream_reset_after_response_started")


def test_a_gate_holds_an_answer_until_it_is_opened(rig):
    gate = answers.Gate()
    test_id = rig.new_id(answers.Answer([b"one", gate.passed, b"two"], framing="chunked"))
    with rig.connect() as connection:
        rig.send(connection, test_id, "acme", [chat_body()])
        response = connection.read_body(connection.read_head(), upto=b"one")
        assert response.body == b"one"
        gate.open()
        assert connection.read_body(response).body == b"onetwo"


def test_bytes_beyond_the_declared_length_are_noticed(rig):
    with rig.connect() as connection:
        body = chat_body()
        response = rig.post("acme", body, pieces=[body[:20], body[20:]], on=connection)
        again = rig.post("acme", body, framing="chunked", pieces=[body[:1], body[1:]], on=connection)
    assert rig.seen(response).body == rig.seen(again).body == body
