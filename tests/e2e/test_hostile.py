"""Hostile and broken input: nothing of it ends the filter, nor reaches another tenant's budget."""

import pytest

from harness import answers
from harness.config import budget, plugin_config
from harness.http import head
from harness.rig import CHAT, MODES, chat_body

INITIAL = 1_000_000_000
PLANS = {"ample": {"budget": budget(INITIAL)}}
HIGH = bytes(range(0x80, 0x100))


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param)


@pytest.fixture(autouse=True)
def still_serves(rig):
    """After each test both workers must serve (a VM that trapped answers 503)."""
    yield
    tenant = rig.tenant("ample")
    assert {rig.chat(tenant).status for _ in range(8)} == {200}


# Header bytes beyond ASCII end a VM whose SDK reads them as text.
def test_a_tenant_header_of_high_bytes_is_unknown_not_a_crash(rig):
    for value in (HIGH, b"acme\xff", b"\x80", b"\xed\xa0\x80"):
        assert rig.chat(value).status == 403


@pytest.mark.parametrize("name", ["x-bin", "x-bursar-tier", "authorization", "content-type", "accept-encoding",
                                  "user-agent", "x-request-id", "cookie"])
def test_any_other_header_may_hold_high_bytes(rig, name):
    assert rig.chat(rig.tenant("ample"), headers=[(name, b"a" + HIGH)]).status == 200


def test_a_path_of_high_bytes_is_no_crash(rig):
    with rig.connect() as connection:
        connection.send(b"POST /v1/\xff\x80/chat/completions HTTP/1.1\r\nhost: a\r\nx-tenant-id: nobody\r\n"
                        b"content-length: 2\r\n\r\n{}")
        assert connection.read().status in (400, 403)


def test_an_upstreams_headers_may_hold_high_bytes(rig):
    answer = answers.json_answer("gpt-4o", answers.usage(3, 4))
    answer.headers += [("x-bin", HIGH.decode("latin-1")), ("content-type", "application/json; a=\xff")]
    answer.headers.pop(0)
    response = rig.chat(rig.tenant("ample"), answer=answer)
    assert response.status == 200
    assert rig.log(response)["charged"] == 7


# Made-up tenants come in floods, with ids that are long or odd.
@pytest.mark.parametrize("tenant", [
    "a;.;tier=.=x;.;", "a=.=b", "bursar/v1/ample-0", "../../x", '"quoted"', "a b", "a,b", "tab\tin", "{}", "x" * 50_000,
    "ample-0 x", "AMPLE-0", "%00", "ä".encode(), "ample-0,ample-1",
], ids=lambda value: repr(value[:12]))
def test_an_odd_tenant_id_is_unknown(rig, tenant):
    response = rig.chat(tenant)
    assert (response.status, response.code) == (403, "tenant_unknown")


# Bodies may be nested deeply, huge, cut off, or come byte by byte.
@pytest.mark.parametrize("depth", [100, 10_000, 200_000])
@pytest.mark.parametrize("opening,closing", [("[", "]"), ('{"a":', "}")], ids=["arrays", "objects"])
def test_deep_nesting_is_served_or_refused_not_a_crash(rig, depth, opening, closing):
    inner = opening * depth + "1" + closing * depth
    response = rig.post(rig.tenant("ample"), f'{{"messages":{inner},"model":"gpt-4o","max_tokens":5}}'.encode())
    assert response.status in (200, 400)
    assert depth > 100 or response.status == 200


def test_a_string_of_ten_megabytes_passes(rig):
    body = chat_body(text="x" * 10_000_000)
    response = rig.post(rig.tenant("ample"), body)
    assert response.status == 200
    assert rig.seen(response).unpadded() == body


def test_a_models_name_of_a_megabyte_is_served_or_refused_not_a_crash(rig):
    assert rig.post(rig.tenant("ample"), chat_body(model="m" * 1_200_000)).status in (200, 400)


@pytest.mark.parametrize("model", ["a\r\nx-injected: 1", "a\x00b", "ünï", "", "\U0001f600", "a;.;b"], ids=repr)
def test_an_odd_model_name_does_not_break_the_headers_that_tell_it(rig, model):
    response = rig.chat(rig.tenant("ample"), model=model)
    assert response.status in (200, 400)
    assert response.header("x-injected") is None


@pytest.mark.parametrize("value", [b"-1", b"1e400", b"99999999999999999999999", b"1.5", b'"10"', b"[]", b"null", b"{}"])
def test_an_odd_max_tokens_neither_crashes_nor_makes_money(rig, value):
    tenant = rig.tenant("ample")
    body = b'{"model":"gpt-4o","messages":[],"max_tokens":' + value + b"}"
    response = rig.post(tenant, body, usage=(10, 5))
    assert response.status in ((200,) if value == b"null" else (200, 400, 429))
    rig.log(response)
    assert rig.remaining(tenant) in ((INITIAL - 15,) if response.status == 200 else (0, INITIAL))


def test_a_wrong_content_type_changes_nothing(rig):
    body = chat_body()
    test_id = rig.new_id()
    with rig.connect() as connection:
        connection.send(head("POST", CHAT, [("host", "a"), ("x-tenant-id", rig.tenant("ample")), ("x-test-id", test_id),
                                            ("content-type", "text/plain"), ("content-length", len(body))]) + body)
        assert connection.read().header("x-bursar-tier") == "default"


def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_hold(rig):
    tenant, test_id = rig.tenant("ample"), rig.new_id()
    body = chat_body()
    with rig.connect(edges=True) as connection:
        connection.send(head("POST", CHAT, rig.headers(tenant, test_id, more=[("content-length", len(body))])), body[:40])
    charged = rig.envoy.logged(test_id)["charged"] or 0
    assert rig.remaining(tenant) in (0, INITIAL - charged)


# Memory is bounded whatever the length of an event, and the next one is found.
def test_one_huge_event_does_not_hide_the_usage_after_it(rig):
    events = answers.stream("gpt-4o", answers.usage(100, 20))
    events[1:1] = [answers.event({"choices": [{"delta": {"content": "x" * 3_000_000}}]})]
    answer = answers.Answer(events, headers=[("content-type", "text/event-stream")], framing="chunked")
    response = rig.chat(rig.tenant("ample"), stream=True, answer=answer)
    assert len(response.body) > 3_000_000
    assert rig.log(response)["charged"] == 120


@pytest.mark.parametrize("answer", [b"", b"{", b"null", b'{"usage":null}', b'{"usage":{"prompt_tokens":-5}}',
                                    b'{"usage":{"prompt_tokens":1e99,"completion_tokens":"x"}}', b"\xff\xfe" * 100],
                         ids=lambda value: repr(value[:24]))
def test_a_broken_answer_is_passed_on_and_makes_no_money(rig, answer):
    tenant = rig.tenant("ample")
    response = rig.chat(tenant, answer=answers.Answer(answer, headers=[("content-type", "application/json")]))
    assert (response.status, response.body) == (200, answer)
    entry = rig.log(response)
    assert entry["charged"] >= 0
    assert rig.remaining(tenant) == INITIAL - entry["charged"]
