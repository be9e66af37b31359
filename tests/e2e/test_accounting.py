"""What is charged: exactly what the upstream reported, by however many clients and workers."""

import gzip
import random

import pytest

from harness import answers, envoy
from harness.config import bucket, budget, plugin_config
from harness.http import head
from harness.rig import CHAT, HOLDING, MODES, chat_body
from harness.wait import in_parallel

BIG = 1_000_000_000
PLANS = {
    "big": {"budget": budget(BIG)},
    "hundred": {"budget": budget(3_000)},
    "ten": {"bucket": bucket(1_000, "1h")},
    "both": {"budget": budget(BIG), "bucket": bucket(1_000, "1h")},
    "weighed": {"budget": budget(1_000), "weights": {"cached_input": 0.1, "output": 4}},
}
RETRIED = "/retried/v1/chat/completions"


def add_retried_route(doc):
    envoy.add_route(doc, "/retried/", route=envoy.to(retry_policy={
        "retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}))


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param, change=add_retried_route)


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_count_by_their_weights_in_a_budget_and_as_they_are_in_metrics(rig, stream):
    tenant = rig.tenant("weighed")
    response = rig.chat(tenant, usage=(1_000, 50, 900), stream=stream)
    # 100 fresh ones, 90 for the cached, 200 for the output.
    assert rig.log(response)["charged"] == 390
    assert rig.left(tenant) == 610
    assert rig.tokens(tenant=tenant) == {"input": 100, "cached_input": 900, "output": 50}


# --- many clients, several workers ---


def mixed_request(rig, tenant, number):
    """JSON, SSE that asks for usage, and SSE that does not, each with a usage of its own."""
    dice = random.Random(number)
    prompt = dice.randrange(1, 5_000)
    usage = (prompt, dice.randrange(1, 2_000), dice.randrange(0, prompt))
    shape = [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}][number % 3]
    response = rig.chat(tenant, usage=usage, **shape)
    assert response.status == 200, response
    return response


def test_sixteen_clients_on_two_workers_are_charged_to_the_token(rig):
    tenant = rig.tenant("big")
    before = dict(rig.upstream.reported)
    responses = in_parallel(16, lambda number: mixed_request(rig, tenant, number), range(480))
    rig.settle_all(responses)
    told = {kind: rig.upstream.reported[kind] - before.get(kind, 0) for kind in ("prompt", "cached", "completion")}
    charged = rig.tokens(tenant=tenant)
    assert charged == {"input": told["prompt"] - told["cached"], "cached_input": told["cached"],
                       "output": told["completion"]}
    assert rig.left(tenant) == BIG - sum(charged.values())
    assert {entry["settled_by"] for entry in rig.envoy.access_log().values() if entry["tenant"] == tenant} == {"usage"}
    for worker in (0, 1):
        assert rig.envoy.stat(f"worker_{worker}.downstream_cx_total$") > 0


# Elsewhere five requests at a time spent 663 tokens of a limit of 100.
def test_a_thousand_requests_on_a_budget_worth_a_hundred_never_overspend_it(rig):
    tenant = rig.tenant("hundred")
    responses = in_parallel(64, lambda _: rig.chat(tenant, usage=(20, 10)), range(1_000))
    rig.settle_all(responses)
    admitted = sum(response.status == 200 for response in responses)
    assert {response.status for response in responses} == {200, 429}
    assert 30 * admitted == sum(rig.tokens(tenant=tenant).values()) <= 3_000
    # No hold is left behind: what the crowd did not spend can be spent in peace.
    for _ in range(101):
        response = rig.chat(tenant, usage=(20, 10))
        rig.log(response)
        if response.status == 429:
            break
    assert response.status == 429
    assert 0 <= rig.remaining(tenant) < len(chat_body()) + 10
    assert sum(rig.tokens(tenant=tenant).values()) == 3_000 - rig.remaining(tenant)


def one_connection_per_worker(rig):
    """Two open connections, one on each worker."""
    found = {}
    while len(found) < 2:
        before = [rig.envoy.stat(f"worker_{worker}.downstream_cx_total$") for worker in (0, 1)]
        connection = rig.connect()
        connection.send(head("GET", "/v1/models", [("host", "llm.test")]))
        connection.read("GET")
        worker = next(w for w in (0, 1) if rig.envoy.stat(f"worker_{w}.downstream_cx_total$") > before[w])
        found.setdefault(worker, connection)
    return [found[0], found[1]]


# A limit that each VM keeps for itself multiplies with the workers.
def test_two_workers_share_one_limit(rig):
    tenant = rig.tenant("ten")
    connections = one_connection_per_worker(rig)
    statuses = []
    for number in range(12):
        response = rig.chat(tenant, usage=(90, 10), on=connections[number % 2])
        statuses.append(response.status)
        rig.log(response)
    for connection in connections:
        connection.close()
    assert statuses == [200] * 10 + [429] * 2


# The host compares versions only where the key exists already.
def test_the_first_requests_of_a_tenant_on_two_workers_lose_no_charge(rig):
    def first_use(_):
        tenant = rig.tenant("big")
        responses = in_parallel(4, lambda _: rig.chat(tenant, usage=(7, 3)), range(4))
        rig.settle_all(responses)
        return rig.left(tenant)

    assert {first_use(number) for number in range(20)} == {BIG - 40}


def test_the_gauge_of_what_is_left_is_right_after_a_crowd(rig):
    # Two workers may charge in one order and tell in the other, above all when they tell for the first time: one new
    # tenant in fifty showed it, so there are many.
    for _ in range(120):
        tenant = rig.tenant("big")
        rig.settle_all(in_parallel(4, lambda _: rig.chat(tenant, usage=(7, 3)), range(4)))
        assert rig.remaining(tenant) == BIG - 40


# Elsewhere refused clients drained the limit of all.
def test_a_refused_request_charges_nothing_anywhere(rig):
    tenant = rig.tenant("both")
    rig.spend(tenant, 500)
    refused = [rig.chat(tenant, max_tokens=800) for _ in range(20)] + [rig.chat(tenant, max_tokens=5_000)]
    assert {response.status for response in refused} == {429}
    rig.settle_all(refused)
    assert rig.remaining(tenant) == BIG - 500
    assert sum(rig.tokens(tenant=tenant).values()) == 500
    # The bucket, too, still holds what it held.
    assert rig.chat(tenant, max_tokens=400).status == 200


def test_a_large_refused_request_does_not_starve_small_ones(rig):
    tenant = rig.tenant("both")
    rig.spend(tenant, 900)
    assert rig.chat(tenant, max_tokens=900).status == 429
    assert rig.chat(tenant, max_tokens=10).status == 200


# --- reading usage ---


def settles(rig, answer, charged, by="usage", **body):
    """Sends a request that is answered by `answer`, and looks at how it was settled."""
    tenant = rig.tenant("big")
    response = rig.chat(tenant, answer=answer, **body)
    entry = rig.log(response)
    assert (entry["settled_by"], entry["charged"]) == (by, charged), entry
    assert rig.remaining(tenant) == BIG - charged
    return response


# The host hands over only what is new once the rest was let go.
def test_usage_is_read_from_json_that_comes_in_small_reads(rig):
    whole = answers.completion("gpt-4o", answers.usage(1234, 56))
    parts = [whole[start:start + 9] for start in range(0, len(whole), 9)]
    answer = answers.Answer(parts, headers=[("content-type", "application/json")], edges=True)
    assert settles(rig, answer, 1290).body == whole


def splits():
    """Where a stream is cut in two: all over the usage event, its ends, and inside characters of several bytes."""
    events = answers.stream("gpt-4o", answers.usage(1234, 56))
    whole = b"".join(events)
    start = whole.index(events[-2])
    end = start + len(events[-2])
    cup = whole.index("☕".encode())
    umlaut = whole.index("ü".encode())
    inside = list(range(start, end, 23))
    usage_key = whole.index(b'"usage": {')
    return sorted(set(inside + [start + 1, usage_key + 3, end - 2, end - 1, end, end + 3, len(whole) - 1,
                                umlaut + 1, cup + 1, cup + 2]))


# An event may be split at every byte, in the middle of a character too. Before the last chunk `usage` may be there
# as null.
@pytest.mark.parametrize("asked", [False, True], ids=["silent", "asked"])
def test_usage_is_read_from_a_stream_that_is_split_anywhere(rig, asked):
    events = answers.stream("gpt-4o", answers.usage(1234, 56))
    whole = b"".join(events)
    expected = whole if asked else whole.replace(events[-2], b"")
    options = {"stream_options": {"include_usage": True}} if asked else {}
    for at in splits():
        answer = answers.Answer([whole[:at], whole[at:]], headers=[("content-type", "text/event-stream")],
                                framing="chunked", edges=True)
        assert settles(rig, answer, 1290, stream=True, **options).body == expected, f"split at {at}"


def test_usage_is_read_from_a_stream_that_comes_byte_by_byte(rig):
    events = answers.stream("gpt-4o", answers.usage(1234, 56), words=("☕",))
    whole = b"".join(events)
    parts = [whole[at:at + 1] for at in range(len(whole))]
    answer = answers.Answer(parts, headers=[("content-type", "text/event-stream")], framing="chunked", edges=True)
    assert settles(rig, answer, 1290, stream=True).body == whole.replace(events[-2], b"")


# Lines end with LF, CRLF or CR, and a CRLF may be cut in two.
@pytest.mark.parametrize("end", [b"\r\n", b"\r"], ids=["crlf", "cr"])
def test_usage_is_read_whatever_ends_the_lines(rig, end):
    events = [each.replace(b"\n", end) for each in answers.stream("gpt-4o", answers.usage(1234, 56))]
    answer = answers.Answer(events, headers=[("content-type", "text/event-stream")], framing="chunked")
    assert settles(rig, answer, 1290, stream=True).body == b"".join(events[:-2] + events[-1:])


# Gemini and the Responses API end without `[DONE]`.
def test_usage_is_read_from_the_last_event_of_a_stream_without_done(rig):
    events = answers.stream("gpt-4o", answers.usage(1234, 56))[:-1]
    answer = answers.Answer(events, headers=[("content-type", "text/event-stream")], framing="chunked")
    assert settles(rig, answer, 1290, stream=True).body == b"".join(events[:-1])


@pytest.mark.parametrize("framing", ["length", "close"])
def test_a_stream_that_loses_its_usage_event_is_framed_rightly(rig, framing):
    events = answers.stream("gpt-4o", answers.usage(1234, 56))
    answer = answers.Answer(events, headers=[("content-type", "Text/Event-Stream; charset=UTF-8")], framing=framing)
    response = settles(rig, answer, 1290, stream=True)
    assert (response.body, response.cut) == (b"".join(events[:-2] + events[-1:]), False)


def test_an_event_without_choices_that_is_no_usage_stays(rig):
    # Azure's first event
    first = answers.event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}], "usage": None})
    events = [first] + answers.stream("gpt-4o", answers.usage(1234, 56))
    answer = answers.Answer(events, headers=[("content-type", "text/event-stream")], framing="chunked")
    assert settles(rig, answer, 1290, stream=True).body == b"".join(events[:-2] + events[-1:])


def test_of_usage_on_each_event_the_last_counts_and_every_event_with_choices_stays(rig):
    # vLLM's continuous_usage_stats
    choices = [{"index": 0, "delta": {"content": "x"}}]
    events = [answers.event({"choices": choices, "usage": answers.usage(100, count)}) for count in range(1, 6)]
    events.append(answers.DONE)
    answer = answers.Answer(events, headers=[("content-type", "text/event-stream")], framing="chunked")
    assert settles(rig, answer, 105, stream=True).body == b"".join(events)


def test_usage_is_read_from_json_though_a_stream_was_asked_for(rig):
    answer = answers.json_answer("gpt-4o", answers.usage(1234, 56))
    assert settles(rig, answer, 1290, stream=True).body == answer.parts[0]


def test_usage_within_the_text_of_an_answer_is_not_the_usage(rig):
    text = 'data: {"usage": {"prompt_tokens": 9, "completion_tokens": 9}}\n\n"usage": {"prompt_tokens": 8}'
    whole = answers.completion("gpt-4o", answers.usage(1234, 56), text=text)
    settles(rig, answers.Answer(whole, headers=[("content-type", "application/json; charset=utf-8")]), 1290)
    events = answers.stream("gpt-4o", answers.usage(1234, 56), words=[text])
    settles(rig, answers.Answer(events, headers=[("content-type", "text/event-stream")], framing="chunked"), 1290,
            stream=True)


# A reported 0 is 0; what is absent is not.
@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_a_reported_zero_charges_nothing(rig, stream):
    tenant = rig.tenant("big")
    entry = rig.log(rig.chat(tenant, usage=(0, 0), stream=stream))
    assert (entry["settled_by"], entry["charged"]) == ("usage", 0)
    assert rig.remaining(tenant) == BIG


def is_estimated(rig, tenant, test_id):
    entry = rig.envoy.logged(test_id)
    assert entry["settled_by"] == "estimate", entry
    assert 0 < entry["charged"] < 1_000, entry
    assert rig.remaining(tenant) == BIG - entry["charged"]


# Without `include_usage` a stream reports nothing.
@pytest.mark.parametrize("answer", [answers.json_answer, answers.sse_answer], ids=["json", "sse"])
def test_an_answer_without_usage_is_charged_by_estimate(rig, answer):
    tenant = rig.tenant("big")
    response = rig.chat(tenant, answer=answer("gpt-4o", None), stream=answer is answers.sse_answer)
    is_estimated(rig, tenant, response.id)


# Some servers compress although identity was asked for.
def test_a_compressed_answer_passes_untouched_and_is_charged_by_estimate(rig):
    tenant = rig.tenant("big")
    packed = gzip.compress(answers.completion("gpt-4o", answers.usage(1234, 56)))
    answer = answers.Answer(packed, headers=[("content-type", "application/json"), ("content-encoding", "gzip")])
    response = rig.chat(tenant, answer=answer, headers=[("accept-encoding", "gzip, br")])
    assert response.body == packed
    assert rig.seen(response).all("accept-encoding") == ["identity"]
    is_estimated(rig, tenant, response.id)


# --- ends that are not the usual one ---


def open_stream(rig, tenant, answer):
    """Starts a streamed request; returns (connection, test id, answer's head)."""
    test_id = rig.new_id(answer)
    connection = rig.connect()
    rig.send(connection, test_id, tenant, [chat_body(stream=True)])
    return connection, test_id, connection.read_head()


# Some clients close at `[DONE]`, or before usage comes.
def test_a_client_that_closes_at_done_is_charged_what_was_reported(rig):
    tenant, gate = rig.tenant("big"), answers.Gate()
    answer = answers.sse_answer("gpt-4o", answers.usage(1234, 56))
    answer.parts.append(gate.passed)
    connection, test_id, response = open_stream(rig, tenant, answer)
    assert connection.read_body(response, upto=b"[DONE]").status == 200
    connection.close()
    entry = rig.envoy.logged(test_id)
    gate.open()
    assert (entry["settled_by"], entry["charged"]) == ("usage", 1290)
    assert rig.remaining(tenant) == BIG - 1290


def test_a_client_that_closes_before_usage_is_charged_by_estimate(rig):
    tenant, gate = rig.tenant("big"), answers.Gate()
    events = answers.stream("gpt-4o", answers.usage(1234, 56))
    answer = answers.Answer([events[0], gate.passed] + events[1:], headers=[("content-type", "text/event-stream")],
                            framing="chunked")
    connection, test_id, response = open_stream(rig, tenant, answer)
    connection.read_body(response, upto=events[0])
    connection.close()
    is_estimated(rig, tenant, test_id)
    gate.open()


def test_a_client_that_closes_before_any_answer_leaves_no_hold(rig):
    tenant, gate = rig.tenant("big"), answers.Gate()
    test_id = rig.new_id(answers.Silence(gate))
    with rig.connect() as connection:
        rig.send(connection, test_id, tenant, [chat_body()])
        gate.wait_until_reached()
    entry = rig.envoy.logged(test_id)
    gate.open()
    assert rig.remaining(tenant) == BIG - entry["charged"]


# What was not served returns its hold, whatever ended it.
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_an_upstream_error_returns_the_reservation_in_full(rig, status):
    tenant = rig.tenant("big")
    response = rig.chat(tenant, answer=answers.error(status))
    assert (response.status, response.code) == (status, "boom")
    entry = rig.log(response)
    assert (entry["settled_by"], entry["charged"]) == ("none", 0)
    assert rig.remaining(tenant) == BIG
    assert sum(rig.tokens(tenant=tenant).values()) == 0


def test_an_upstreams_own_429_keeps_its_headers_where_no_lower_tier_is_open(rig):
    answer = answers.error(429)
    answer.headers.append(("retry-after", "17"))
    response = rig.chat(rig.tenant("big"), answer=answer, model="gpt-4o-mini")
    assert response.all("retry-after") == ["17"]
    assert rig.log(response)["details"] == "via_upstream"


def test_a_reset_before_an_answer_returns_the_reservation_in_full(rig):
    tenant = rig.tenant("big")
    response = rig.chat(tenant, answer=answers.Reset())
    assert response.status == 503
    entry = rig.log(response)
    assert (entry["settled_by"], entry["charged"]) == ("none", 0)
    assert rig.remaining(tenant) == BIG


def test_a_stream_that_is_cut_is_charged_by_estimate(rig):
    tenant = rig.tenant("big")
    events = answers.stream("gpt-4o", answers.usage(1234, 56))
    answer = answers.Answer(events[:2], headers=[("content-type", "text/event-stream")], framing="chunked",
                            edges=True, then="reset")
    response = rig.chat(tenant, answer=answer, stream=True)
    assert response.cut
    is_estimated(rig, tenant, response.id)


def test_an_answer_that_comes_before_the_request_is_over_leaves_no_hold(rig):
    tenant = rig.tenant("big")
    test_id, body = rig.new_id(), chat_body()
    rig.upstream.early[test_id] = answers.error(400, then="close")
    with rig.connect() as connection:
        headers = rig.headers(tenant, test_id, more=[("content-length", len(body) + 1_200_000)])
        connection.send(head("POST", CHAT, headers) + body)   # the rest, white space, never comes
        response = connection.read()
    assert (response.status, response.code) == (400, "boom")
    entry = rig.envoy.logged(test_id)
    assert (entry["settled_by"], entry["charged"]) == ("none", 0)
    assert rig.left(tenant) == BIG


# A request that the router retries is one request to its tenant.
def test_retries_by_the_router_are_charged_once(rig):
    tenant = rig.tenant("big")
    served = answers.json_answer("gpt-4o", answers.usage(100, 11))
    response = rig.post(tenant, chat_body(), answer=[answers.error(503), answers.error(503), served], path=RETRIED)
    attempts = rig.upstream.of(response.id)
    assert response.status == 200
    assert [attempt.body for attempt in attempts] == [chat_body()] * 3
    assert rig.log(response)["charged"] == 111
    assert rig.remaining(tenant) == BIG - 111
    assert rig.mode != HOLDING or {each.header("x-bursar-tier") for each in attempts} == {"default"}


# --- what operators read ---


def test_every_settlement_and_request_is_counted_by_kind(rig):
    tenant = rig.tenant("big")
    before = {by: rig.metric("bursar_settlements_total", by=by) for by in ("usage", "estimate", "none")}
    responses = [rig.chat(tenant), rig.chat(tenant, answer=answers.json_answer("gpt-4o", None)),
                 rig.chat(tenant, answer=answers.error(500))]
    rig.settle_all(responses)
    after = {by: rig.metric("bursar_settlements_total", by=by) for by in before}
    assert {by: after[by] - before[by] for by in before} == {"usage": 1, "estimate": 1, "none": 1}
    assert rig.metric("bursar_requests_total", tenant=tenant, tier="default", decision="admit") == 3


def test_nothing_is_logged_at_info_on_a_requests_way(rig):
    before = rig.envoy.log().count("wasm log")
    rig.settle_all([rig.chat(rig.tenant("big")), rig.chat("nobody"), rig.chat(None)])
    assert rig.envoy.log().count("wasm log") == before


def test_spend_is_told_in_millionths_of_a_dollar(rig):
    tenant = rig.tenant("big")
    rig.log(rig.chat(tenant, usage=(3_000, 500, 1_000)))
    # (2,000 at 2.50) + (1,000 cached at 1.25) + (500 at 10.0) dollars for each million
    assert rig.metric("bursar_spend_total", tenant=tenant, tier="default", model="gpt-4o") == 11_250


def test_what_a_downgrade_saved_is_told_in_millionths_of_a_dollar(rig):
    tenant = rig.tenant("big")
    rig.spend(tenant, 600_000_000)
    rig.log(rig.chat(tenant, usage=(10_000, 1_000)))
    assert rig.metric("bursar_saved_total", tenant=tenant) == (25_000 + 10_000) - (4_000 + 1_600)
