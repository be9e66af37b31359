"""Who is refused, how, and how long a refusal lasts."""

import calendar
import datetime
import re
import time

import pytest

from harness import answers
from harness.config import bucket, budget, plugin_config
from harness.http import chunked, head
from harness.rig import CHAT, HOLDING, MODES, chat_body, send_unless_refused
from harness.wait import let_pass

PLANS = {
    "plain": {"budget": budget(1_000_000)},
    "refilling": {"bucket": bucket(1_000, "2s")},
    "patient": {"bucket": bucket(1_000, "1s"), "budget": budget(4_000)},
    "hourly": {"bucket": bucket(1_000, "1h")},
    "capped": {"bucket": bucket(100_000, "1h", burst=200)},
    "daily": {"budget": budget(1_000, "day")},
    "monthly": {"budget": budget(1_000, "month")},
    "abroad": {"budget": budget(1_000, "day") | {"timezone": "Asia/Kathmandu"}},
    "once": {"budget": budget(1_000)},
    "short": {"budget": budget(1_000, "3s")},
    "tight_budget": {"budget": budget(1_000), "bucket": bucket(100_000, "1h")},
    "tight_bucket": {"budget": budget(100_000), "bucket": bucket(1_000, "1h")},
    "tight_both": {"budget": budget(1_000), "bucket": bucket(1_000, "1h")},
    "modest": {"max_request": {"tokens": 500}},
    "lowered": {"max_request": {"tokens": 500}, "min_output_tokens": 50},
    "choosy": {"models": ["gpt-4o*"]},
    "narrow": {"budget": budget(len(chat_body()) + 150)},
}


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(plugin_config(PLANS), mode=request.param)


def is_refused(rig, response, status, code, reason):
    """The statuses, codes and details of the contract's table, in OpenAI's error shape."""
    assert (response.status, response.code) == (status, code), response
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and error["type"] and error["param"] is None
    assert response.header("content-type").startswith("application/json")
    entry = rig.log(response)
    assert (entry["status"], entry["details"]) == (status, f"bursar_{reason}")
    if status == 429:
        assert response.header("x-bursar-decision") == "throttle"
        assert response.header("x-bursar-reason") == reason


# --- who may not ask at all ---


def test_no_tenant_is_401(rig):
    response = rig.chat(None)
    is_refused(rig, response, 401, "tenant_required", "tenant_required")
    assert rig.upstream.begun_of(response.id) == []


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_request_that_may_cost_more_than_one_may_is_400_or_has_its_limit_lowered(rig, framing):
    tenant, body = rig.tenant("modest"), chat_body(max_tokens=5_000)
    response = rig.post(tenant, body, framing=framing)
    is_refused(rig, response, 400, "request_exceeds_maximum", "request_exceeds_maximum")
    assert rig.upstream.of(response.id) == []
    assert rig.post(tenant, chat_body(max_tokens=450), framing=framing).status == 200
    response = rig.post(rig.tenant("lowered"), body, framing=framing)
    # Four bytes are likely to be a token.
    most = 500 - -(-len(body) // 4)
    assert response.header("x-bursar-max-output-tokens") == str(most)
    [request] = rig.upstream.of(response.id)
    assert request.json()["max_tokens"] == most


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_model_that_the_plan_does_not_allow_is_403(rig, framing):
    tenant = rig.tenant("choosy")
    assert rig.post(tenant, chat_body(model="gpt-4o-mini"), framing=framing).status == 200
    response = rig.post(tenant, chat_body(model="o3"), framing=framing)
    is_refused(rig, response, 403, "model_not_allowed", "model_not_allowed")
    assert response.header("x-bursar-requested-model") == "o3"
    assert rig.upstream.of(response.id) == []


def test_an_empty_tenant_is_no_tenant(rig):
    is_refused(rig, rig.chat(""), 401, "tenant_required", "tenant_required")


def test_two_tenants_on_one_request_are_no_tenant(rig):
    response = rig.chat(rig.tenant("plain"), headers=[("x-tenant-id", rig.tenant("plain"))])
    is_refused(rig, response, 401, "tenant_required", "tenant_required")


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1//chat//completions", "/v1/CHAT/Completions",
                                  "/v1/chat/completion%73", "/v1/x/../chat/completions", "/v1/chat/./completions",
                                  "/v1/chat%2Fcompletions", "/v1/chat/completions?", "/v1/chat/completions%0a", "/v1/chat/completions%0A?x=1",
                                  "/v1/chat/completions;x=1", "/v1/chat/completions%20/", "/v1/chat/completions#x",
                                  "/v1/chat\\completions"])
def test_no_spelling_of_the_path_gets_past_the_meter(rig, path):
    response = rig.post(None, chat_body(), path=path)
    # 401 is ours; Envoy itself refuses a fragment.
    assert response.status in (401, 400), response
    assert rig.upstream.begun_of(response.id) == []


def test_a_tenant_that_is_not_configured_is_403(rig):
    response = rig.chat("nobody")
    is_refused(rig, response, 403, "tenant_unknown", "tenant_unknown")
    assert rig.upstream.begun_of(response.id) == []


NOT_CHAT = {
    "empty": b"",
    "not_json": b"model=gpt-4o",
    "array": b'["model","gpt-4o"]',
    "string": b'"model"',
    "no_model": b'{"messages":[]}',
    "number": b'{"model":4,"messages":[]}',
    "null": b'{"model":null,"messages":[]}',
    "object": b'{"model":{"name":"gpt-4o"},"messages":[]}',
    "twice": b'{"model":"gpt-4o","messages":[],"model":"gpt-4o-mini"}',
    "twice_escaped": b'{"model":"gpt-4o","messages":[],"mod\\u0065l":"gpt-4o-mini"}',
    "twice_other_case": b'{"model":"gpt-4o","messages":[],"Model":"gpt-4o-mini"}',
    "max_tokens_twice": b'{"model":"gpt-4o","max_tokens":1,"messages":[],"max_tokens":100000}',
    "stream_twice": b'{"model":"gpt-4o","stream":false,"messages":[],"stream":true}',
    "truncated": b'{"model":"gpt-4o","messages":[{"role":"user"',
    "ends_in_an_escape": b'{"model":"gpt-4o","messages":"\\u00',
    "two_objects": b'{"model":"gpt-4o"}{"model":"gpt-4o"}',
    "not_an_object_after_all": b'{"model":"gpt-4o",]',
}


# `model` may come first or last, nested, escaped, or as text within a string. Bodies may be nested deeply, huge,
# cut off, or come byte by byte.
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("name", list(NOT_CHAT))
def test_a_body_that_is_no_chat_request_is_400(rig, name, framing):
    tenant = rig.tenant("plain")
    response = rig.post(tenant, NOT_CHAT[name], framing=framing)
    is_refused(rig, response, 400, "invalid_request_body", "invalid_request_body")
    assert rig.remaining(tenant) in (0, 1_000_000)   # 0: never shown, as nothing was ever charged
    assert rig.upstream.of(response.id) == []
    if rig.mode == HOLDING and framing == "length":
        assert rig.upstream.begun_of(response.id) == []


def test_a_post_without_a_body_is_400(rig):
    test_id = rig.new_id()
    with rig.connect() as connection:
        connection.send(head("POST", CHAT, rig.headers(rig.tenant("plain"), test_id)))
        response = connection.read()
    response.id = test_id
    is_refused(rig, response, 400, "invalid_request_body", "invalid_request_body")


# --- the bucket ---


def test_an_empty_bucket_is_429_with_the_time_to_its_refill(rig):
    tenant = rig.tenant("hourly")
    started = time.monotonic()
    rig.spend(tenant, 1_000)
    response = rig.chat(tenant, max_tokens=100)
    passed_ms = (time.monotonic() - started) * 1000
    is_refused(rig, response, 429, "rate_limit_exceeded", "bucket_empty")
    wait_ms = int(response.header("retry-after-ms"))
    assert int(response.header("retry-after")) == -(-wait_ms // 1000)
    # What the prompt is expected to take, and max_tokens are wanted; one comes every 3.6 s from when the full bucket was
    # first touched. The tokens just spent on a few bytes have taught it that a token takes a little less than 4 of them.
    least, most = (-(-len(chat_body(max_tokens=100)) // bytes_per_token) + 100 for bytes_per_token in (4, 3))
    assert least * 3_600 - passed_ms <= wait_ms <= most * 3_600
    # Longer than a call of an SDK should sleep.
    assert response.header("x-should-retry") == "false"


# Several limits on one request: all apply, and the strictest is reported.
def test_a_refusal_in_mid_ladder_tells_the_limit_too(rig):
    tenant = rig.tenant("hourly")
    rig.spend(tenant, 1_000)
    response = rig.chat(tenant)
    assert response.header("x-ratelimit-limit-tokens") == "1000"
    assert 0 <= int(response.header("x-ratelimit-remaining-tokens")) <= 5
    assert response.header("ratelimit-policy") == '"bucket";q=1000;w=3600'


@pytest.mark.parametrize("plan,code,reason", [
    ("tight_budget", "insufficient_quota", "budget_exhausted"),
    ("tight_bucket", "rate_limit_exceeded", "bucket_empty"),
    ("tight_both", "insufficient_quota", "budget_exhausted"),
])
def test_of_two_limits_both_apply_and_the_strictest_is_told(rig, plan, code, reason):
    tenant = rig.tenant(plan)
    admitted = rig.spend(tenant, 1_000)
    refused = rig.chat(tenant)
    is_refused(rig, refused, 429, code, reason)
    for response in (admitted, refused):
        assert response.header("x-ratelimit-limit-tokens") == "1000"
        assert {part.split(";")[0] for part in response.header("ratelimit-policy").split(", ")} == {'"budget"', '"bucket"'}


def test_the_request_after_the_wait_passes_and_none_before(rig):
    tenant = rig.tenant("refilling")
    rig.spend(tenant, 1_500)
    asked = time.monotonic()
    refused = rig.chat(tenant)
    answered = time.monotonic()
    wait = int(refused.header("retry-after-ms")) / 1000
    assert 1.0 < wait <= 1.1
    too_early = []
    while time.monotonic() < asked + wait - 0.25:
        let_pass(0.1)
        if time.monotonic() < asked + wait - 0.002:
            sent = time.monotonic()
            too_early.append((sent, rig.chat(tenant)))
    # Each refusal names the same moment, whenever it is asked.
    for sent, response in too_early:
        if response.status == 200:
            assert time.monotonic() > asked + wait
        else:
            assert sent + int(response.header("retry-after-ms")) / 1000 <= answered + wait + 0.002
    if not any(response.status == 200 for _, response in too_early):
        let_pass(answered + wait - time.monotonic())
        assert rig.chat(tenant).status == 200


# Elsewhere a bucket did not refill for two years: time has to pass in a test.
def test_a_bucket_refills_after_a_long_idle_and_holds_no_more_than_its_burst(rig):
    tenant = rig.tenant("refilling")
    rig.spend(tenant, 1_000)
    assert rig.chat(tenant, max_tokens=900).status == 429
    let_pass(4.0)
    rig.spend(tenant, 1_000)
    again = rig.chat(tenant, max_tokens=900)
    assert (again.status, again.header("x-bursar-reason")) == (429, "bucket_empty")


# A rate limiter in the place of a budget made large budgets unreachable elsewhere.
def test_a_budget_larger_than_its_bucket_can_be_spent_to_the_last_token(rig):
    tenant, statuses = rig.tenant("patient"), []
    for _ in range(4):
        response = rig.chat(tenant, usage=(900, 100))
        if response.status == 429:
            is_refused(rig, response, 429, "rate_limit_exceeded", "bucket_empty")
            let_pass(int(response.header("retry-after-ms")) / 1000)
            response = rig.chat(tenant, usage=(900, 100))
        rig.log(response)
        statuses.append(response.status)
    assert statuses == [200] * 4
    assert rig.remaining(tenant) == 0
    is_refused(rig, rig.chat(tenant), 429, "insufficient_quota", "budget_exhausted")


def test_a_request_larger_than_the_bucket_can_ever_hold_is_told_so(rig):
    response = rig.chat(rig.tenant("capped"), max_tokens=500)
    is_refused(rig, response, 429, "request_exceeds_burst", "request_exceeds_burst")
    assert response.header("x-should-retry") == "false"
    assert response.all("retry-after") == response.all("retry-after-ms") == []


def test_a_throttled_client_keeps_its_connection(rig):
    tenant = rig.tenant("capped")
    with rig.connect() as connection:
        rig.send(connection, rig.new_id(), tenant, [chat_body(max_tokens=500)])
        refused = connection.read()
        assert (refused.status, refused.all("connection")) == (429, [])
        rig.send(connection, rig.new_id(), tenant, [chat_body(max_tokens=1)])
        assert connection.read().status == 200


# --- the budget ---


# What is spent beyond a limit is recorded all the same.
def test_a_budget_held_by_a_request_in_flight_is_429_with_a_short_wait(rig):
    tenant, gate = rig.tenant("narrow"), answers.Gate()
    first = rig.new_id(answers.json_answer("gpt-4o", answers.usage(5, 5), before=gate.passed))
    with rig.connect() as connection:
        rig.send(connection, first, tenant, [chat_body(max_tokens=100)])
        gate.wait_until_reached()
        response = rig.chat(tenant, max_tokens=100)
        is_refused(rig, response, 429, "rate_limit_exceeded", "budget_held")
        assert 1 <= int(response.header("retry-after")) <= 30
        assert 0 < int(response.header("retry-after-ms")) <= 30_000
        gate.open()
        assert connection.read().status == 200
    rig.envoy.logged(first)
    assert rig.chat(tenant, max_tokens=100).status == 200


@pytest.mark.parametrize("asked", [{"max_tokens": None}, {"max_tokens": 2_000}, {"max_tokens": 300, "n": 4},
                                   {"max_tokens": None, "max_completion_tokens": 2_000}], ids=str)
def test_a_request_that_may_cost_more_than_is_left_is_refused(rig, asked):
    tenant = rig.tenant("once")
    response = rig.chat(tenant, **asked)
    is_refused(rig, response, 429, "insufficient_quota", "budget_exhausted")
    assert rig.chat(tenant, max_tokens=300).status == 200


# Elsewhere five requests at a time spent 663 tokens of a limit of 100.
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("late", [b'"max_tokens":2000}', b'"user":"' + b"x" * 2_000 + b'"}'], ids=["output", "input"])
def test_a_cost_that_shows_late_in_the_body_is_refused_all_the_same(rig, late, framing):
    tenant = rig.tenant("once")
    early = b'{"model":"gpt-4o","messages":[],"n":1,"stop":"' + b"x" * 50 + b'","temperature":0,'
    test_id = rig.new_id()
    with rig.connect(edges=True) as connection:
        # Envoy reads no more once it has refused, so only the first piece is waited for.
        how = ("transfer-encoding", "chunked") if framing == "chunked" else ("content-length", len(early + late))
        pieces = chunked([early, late]) if framing == "chunked" else [early, late]
        connection.send(head("POST", CHAT, rig.headers(tenant, test_id, more=[how])), pieces[0])
        connection.read_by_envoy = None
        send_unless_refused(connection, b"".join(pieces[1:]))
        response = connection.read()
    response.id = test_id
    is_refused(rig, response, 429, "insufficient_quota", "budget_exhausted")
    assert rig.upstream.of(test_id) == []
    assert rig.chat(tenant, max_tokens=300).status == 200


# Envoy's buffer limit is 1 MiB by default; no 413 may be of our making.
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_is_too_large_to_hold_is_refused_if_it_costs_too_much(rig, framing):
    tenant = rig.tenant("plain")
    response = rig.post(tenant, chat_body(text="x" * 3_000_000), framing=framing)
    is_refused(rig, response, 429, "insufficient_quota", "budget_exhausted")
    assert rig.upstream.of(response.id) == []
    assert rig.chat(tenant).status == 200


# There the clocks are never changed.
KATHMANDU = datetime.timezone(datetime.timedelta(hours=5, minutes=45))


def until_next(window, there):
    now = datetime.datetime.now(there)
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if window == "day":
        return (day + datetime.timedelta(days=1) - now).total_seconds()
    days = calendar.monthrange(now.year, now.month)[1]
    return (day.replace(day=1) + datetime.timedelta(days=days) - now).total_seconds()


@pytest.mark.parametrize("plan,window,there", [
    ("daily", "day", datetime.timezone.utc),
    ("monthly", "month", datetime.timezone.utc),
    ("abroad", "day", KATHMANDU),
])
def test_a_spent_budget_is_429_until_its_window_ends(rig, plan, window, there):
    tenant = rig.tenant(plan)
    rig.spend(tenant, 1_000)
    before = until_next(window, there)
    response = rig.chat(tenant)
    after = until_next(window, there)
    is_refused(rig, response, 429, "insufficient_quota", "budget_exhausted")
    assert response.header("x-should-retry") == "false"
    assert after <= int(response.header("retry-after")) <= before + 1


def test_a_spent_budget_without_a_window_is_refused_for_good(rig):
    tenant = rig.tenant("once")
    rig.spend(tenant, 1_000)
    response = rig.chat(tenant)
    is_refused(rig, response, 429, "insufficient_quota", "budget_exhausted")
    assert response.header("x-should-retry") == "false"


# Windows end while requests are in flight, and clocks are set back.
def test_a_spent_budget_is_whole_again_when_its_window_ends(rig):
    tenant = rig.tenant("short")
    for _ in range(2):   # a window may end between two requests, but not twice in a row
        rig.log(rig.chat(tenant, usage=(995, 0)))
        asked = time.monotonic()
        refused = rig.chat(tenant)
        if refused.status == 429:
            break
    is_refused(rig, refused, 429, "insufficient_quota", "budget_exhausted")
    wait = int(refused.header("retry-after"))
    assert 1 <= wait <= 3
    let_pass(asked + wait - time.monotonic() + 0.002)
    assert rig.chat(tenant).status == 200


@pytest.mark.parametrize("used,debt", [((50, 10), 0), ((800, 100), 900 - len(chat_body()) - 10)])
def test_a_request_in_flight_when_its_window_ends_charges_the_next_only_what_it_used_beyond_its_hold(rig, used, debt):
    tenant, gate = rig.tenant("short"), answers.Gate()
    test_id = rig.new_id(answers.json_answer("gpt-4o", answers.usage(*used), before=gate.passed))
    with rig.connect() as connection:
        rig.send(connection, test_id, tenant, [chat_body()])
        gate.wait_until_reached()
        let_pass(3.0)
        assert rig.left(tenant) == 1_000   # nor does it hold anything in the new window
        gate.open()
        assert connection.read().status == 200
    assert rig.envoy.logged(test_id)["charged"] == sum(used)
    assert rig.left(tenant) == 1_000 - debt


# --- what a refusal costs and touches ---


# Our own answer runs through our own response callbacks.
def test_our_own_429_is_counted_but_not_accounted(rig):
    tenant = rig.tenant("once")
    rig.spend(tenant, 1_000)
    settled = rig.metric("bursar_settlements_total")
    refused = [rig.chat(tenant) for _ in range(5)]
    for response in refused:
        entry = rig.log(response)
        assert (entry["decision"], entry["reason"], entry["tenant"]) == ("throttle", "budget_exhausted", tenant)
    assert rig.metric("bursar_settlements_total") == settled
    assert rig.metric("bursar_throttled_total", tenant=tenant, reason="budget_exhausted") == 5
    assert rig.metric("bursar_requests_total", tenant=tenant, decision="throttle") == 5
    assert sum(rig.tokens(tenant=tenant).values()) == 1_000
    assert rig.remaining(tenant) == 0


# Within a stream a refusal can be no 429: it comes before the response's headers.
def test_a_throttled_request_never_reaches_the_upstream_where_headers_are_held(rig):
    tenant = rig.tenant("once")
    rig.spend(tenant, 1_000)
    response = rig.chat(tenant, stream=True)
    assert response.status == 429
    assert rig.upstream.of(response.id) == []
    assert rig.mode != HOLDING or rig.upstream.begun_of(response.id) == []


def test_a_connection_is_good_for_more_after_a_refusal_or_is_closed(rig):
    tenant = rig.tenant("plain")
    with rig.connect() as connection:
        refused = rig.post("nobody", chat_body(), on=connection)
        assert refused.status == 403
        if refused.header("connection") != "close":
            assert rig.chat(tenant, on=connection).status == 200


# What is no LLM call is neither charged nor blocked.
@pytest.mark.parametrize("method,path", [
    ("GET", "/v1/models"), ("HEAD", "/v1/models"), ("GET", "/healthz"), ("GET", "/v1/chat/completions"),
    ("OPTIONS", "/v1/chat/completions"), ("DELETE", "/v1/chat/completions/abc"), ("GET", "/"),
])
def test_what_is_no_llm_call_passes_untouched_and_uncharged(rig, method, path):
    before = rig.metric("bursar_requests_total")
    response = rig.get(path, method)
    assert response.status == 200
    assert not [name for name, _ in response.headers if name.startswith(("x-bursar", "x-ratelimit", "ratelimit"))]
    assert rig.seen(response).line == f"{method} {path} HTTP/1.1"
    assert rig.metric("bursar_requests_total") == before


@pytest.mark.parametrize("path", ["/v1/unknown", "/v1/chat/completionsx", "/chat/completions/tail"])
def test_a_post_elsewhere_passes_untouched_and_uncharged(rig, path):
    body = b'{"model": broken'
    response = rig.post(None, body, path=path)
    assert response.status == 200
    request = rig.seen(response)
    assert (request.body, request.header("content-length")) == (body, str(len(body)))
    assert rig.log(response)["tenant"] is None


def test_a_404_of_the_upstream_is_passed_on_and_not_charged(rig):
    tenant = rig.tenant("plain")
    response = rig.chat(tenant, answer=answers.error(404))
    assert response.status == 404
    assert rig.log(response)["charged"] == 0


def test_reset_is_told_in_openais_form(rig):
    tenant = rig.tenant("hourly")
    rig.spend(tenant, 500)
    reset = rig.chat(tenant).header("x-ratelimit-reset-tokens")
    assert re.fullmatch(r"(\d+h)?(\d+m)?(\d+(\.\d+)?s|\d+ms)?", reset) and reset, reset
