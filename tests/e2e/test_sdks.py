"""Every provider's official SDK, unmodified, streamed and not, with aimock as the upstream where it has the API."""

import gzip

import pytest

from harness import aimock, answers, envoy, sdks, wires
from harness.config import bucket, budget, plugin_config
from harness.rig import HOLDING, MODES
from harness.upstream import TEST_ID
from harness.wait import until

INITIAL = 100_000
REPORTED = (aimock.INPUT, aimock.OUTPUT)
PLANS = {
    "ample": {"budget": budget(INITIAL)},
    "low": {"budget": budget(INITIAL), "low_water_mark": 1.0},   # the lower tier as soon as anything is spent
    "daily": {"budget": budget(1_000, "day")},
    "slow": {"bucket": bucket(1_000, "1h")},
}
TO_AIMOCK = "x-test-upstream"
CALLS = [pytest.param(sdk, stream, id=f"{sdk}-{'stream' if stream else 'whole'}")
         for sdk in sdks.ALL for stream in sdk.forms]
# An SDK that asks again all the same takes seconds: once is enough.
IMPATIENT = [call for call in CALLS if call.values[0].attempts > 1]
PATIENT = [call for call in CALLS if call not in IMPATIENT] + IMPATIENT[:1]
INVALID = [call for call in CALLS if call.values[0].can_be_invalid]


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    mock = aimock.Aimock(tmp_path_factory.mktemp("aimock"))
    yield mock
    mock.stop()


@pytest.fixture(scope="module", params=MODES)
def stage(start_rig, request, mock):
    def add_aimock(doc):
        address = {"socket_address": {"address": "127.0.0.1", "port_value": mock.port}}
        envoy.render.clusters(doc).append({
            "name": "aimock", "type": "STATIC", "load_assignment": {
                "cluster_name": "aimock", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]}})
        asked = {"name": TO_AIMOCK, "string_match": {"exact": "aimock"}}
        envoy.render.hcm(doc)["route_config"]["virtual_hosts"][0]["routes"].insert(0, {
            "match": {"prefix": "/", "headers": [asked]}, "route": {"cluster": "aimock", "timeout": "0s"}})

    config = plugin_config(PLANS, ladders=sdks.ladders())
    del config["tiers"]
    return Stage(start_rig(config, mode=request.param, change=add_aimock), mock)


class Stage:
    """SDKs that call through Envoy, aimock or the scripted upstream behind it."""

    def __init__(self, rig, mock):
        self.rig, self.mock = rig, mock

    def call(self, sdk, tenant, stream, answer=None):
        """Has the SDK call; returns the test id and what it got. `answer`: what the scripted upstream says."""
        test_id, headers = self.prepare(sdk, tenant, stream, answer)
        return test_id, sdk.ask(self.url, headers, stream)

    def refused(self, sdk, tenant, stream, status, word=None, **how):
        """What the SDK's error tells of a call that must be refused. `word`: not the status's usual one."""
        error, usual = sdk.errors[status]
        test_id, headers = self.prepare(sdk, tenant, stream)
        with pytest.raises(error) as raised:
            sdk.ask(self.url, headers, stream, **how)
        refused = sdk.refused(raised.value)
        assert (refused.error, refused.status) == (error, status)
        assert (word or usual) in (refused.word, None)
        self.rig.envoy.logged(test_id)
        self.never_reached_the_upstream(test_id)
        return refused

    def prepare(self, sdk, tenant, stream, answer=None):
        from_aimock = answer is None and sdk.aimock_serves[stream]
        test_id = self.rig.new_id(None if from_aimock else answer or sdk.wire(REPORTED, stream))
        headers = {TEST_ID: test_id, TO_AIMOCK: "aimock" if from_aimock else "scripted"}
        if tenant is not None:
            headers["x-tenant-id"] = tenant
        return test_id, headers

    @property
    def url(self):
        return f"http://127.0.0.1:{self.rig.envoy.port}"

    def never_reached_the_upstream(self, test_id):
        journal = self.mock.journal(test_id)
        if self.rig.mode == HOLDING:
            assert (journal, self.rig.upstream.begun_of(test_id)) == ([], [])
        else:
            # The headers may have left before the body was read; aimock journals what was broken off, without a body.
            assert (list(filter(None, (entry["body"] for entry in journal))), self.rig.upstream.of(test_id)) == ([], [])

    def sent(self, test_id):
        """What reached the upstream: (path without its model, the model in the path, the model in the body)."""
        seen = [(entry["path"], entry["body"]) for entry in self.mock.journal(test_id)]
        seen += [(request.target, request.json()) for request in self.rig.upstream.of(test_id)]
        return [sdks.path_and_model(path) + ((body or {}).get("model"),) for path, body in seen]


def told(got):
    return {name: got.headers.get(f"x-bursar-{name}")
            for name in ("tier", "model", "requested-model", "decision", "reason")}


def as_asked(sdk, reason=None):
    """What is told of a call that is served by the model it asks for."""
    return {"tier": "top", "model": sdk.top, "requested-model": sdk.top, "decision": "admit", "reason": reason}


def models(stage, test_id):
    """The path of the one request to the upstream, and the names that it had for its model, decoded. aimock's journal
    repeats the path's in the body."""
    (path, in_path, in_body), = stage.sent(test_id)
    names = {sdks.urllib.parse.unquote(name) for name in (in_path, in_body) if name is not None}
    assert names, path
    return path, names


@pytest.mark.parametrize("sdk,stream", CALLS)
def test_a_call_is_served_by_the_model_that_was_asked_for_and_settled_to_the_token(stage, sdk, stream):
    tenant = stage.rig.tenant("ample")
    test_id, got = stage.call(sdk, tenant, stream)
    assert got.text == aimock.TEXT == wires.TEXT
    assert models(stage, test_id)[1] == {sdk.top}
    assert told(got) == as_asked(sdk)
    is_settled(stage.rig, tenant, test_id, got.usage, sdk.top)


def is_settled(rig, tenant, test_id, usage, model):
    """The books say what the SDK was told, and nothing else."""
    given, made = usage
    entry = rig.envoy.logged(test_id)
    assert (entry["input_tokens"], entry["output_tokens"]) == (given, made)
    assert (entry["charged"], entry["settled_by"]) == (given + made, "usage")
    assert rig.tokens(tenant=tenant, model=model) == {"input": given, "cached_input": 0, "output": made}
    assert rig.tokens(tenant=tenant) == {"input": given, "cached_input": 0, "output": made}
    assert rig.remaining(tenant) == INITIAL - given - made


def called_when_low(stage, sdk, stream):
    """A call of a tenant who is due for the lower tier: (test id, what it got)."""
    tenant = stage.rig.tenant("low")
    stage.rig.spend(tenant, 100)
    test_id, got = stage.call(sdk, tenant, stream)
    assert got.text == aimock.TEXT
    entry = stage.rig.envoy.logged(test_id)
    assert (entry["charged"], entry["settled_by"]) == (sum(got.usage), "usage")
    assert stage.rig.remaining(tenant) == INITIAL - 100 - sum(got.usage)
    return test_id, got


def keeps_its_model(stage, sdk, test_id, got, reason):
    assert models(stage, test_id)[1] == {sdk.top}
    assert told(got) == as_asked(sdk, reason)


# Gemini, Azure and Bedrock carry the model in the path. A downgrade is announced in headers, for JSON and streams
# alike.
@pytest.mark.parametrize("sdk,stream", [call for call in CALLS if call.values[0].is_exchangeable])
def test_a_downgrade_stands_in_what_the_upstream_saw_and_is_told(stage, sdk, stream):
    first, _ = stage.call(sdk, stage.rig.tenant("ample"), stream)
    second, got = called_when_low(stage, sdk, stream)
    assert models(stage, second) == (models(stage, first)[0], {sdk.lower})
    assert told(got) == {"tier": "low", "model": sdk.lower, "requested-model": sdk.top, "decision": "downgrade",
                         "reason": "budget_low"}


@pytest.mark.parametrize("sdk", [sdk for sdk in sdks.ALL if not sdk.is_exchangeable], ids=str)
def test_embeddings_keep_their_model_since_vectors_of_two_cannot_be_compared(stage, sdk):
    keeps_its_model(stage, sdk, *called_when_low(stage, sdk, False), "tier_unsupported")


@pytest.mark.parametrize("stream", sdks.CAREFUL.forms)
def test_a_model_in_the_path_waits_for_what_the_body_needs_where_headers_are_held(stage, stream):
    test_id, got = called_when_low(stage, sdks.CAREFUL, stream)
    if stage.rig.mode == HOLDING:
        assert (models(stage, test_id)[1], told(got)["decision"]) == ({sdks.CAREFUL.lower}, "downgrade")
    else:
        keeps_its_model(stage, sdks.CAREFUL, test_id, got, "body_unread")


# SDKs go by retry-after, retry-after-ms and x-should-retry, each in its own way.
@pytest.mark.parametrize("sdk,stream", CALLS)
def test_a_spent_budget_raises_the_sdks_own_rate_limit_error(stage, sdk, stream):
    tenant = stage.rig.tenant("daily")
    stage.rig.spend(tenant, 1_000)
    status, word = sdk.spent
    refused = stage.refused(sdk, tenant, stream, status, word)
    # At its defaults: nothing would change by asking again.
    assert stage.rig.metric("bursar_throttled_total", tenant=tenant) == 1
    assert refused.code in ("insufficient_quota", None)
    assert refused.headers["x-bursar-reason"] == "budget_exhausted"
    assert refused.headers["x-should-retry"] == "false"
    assert 0 < int(refused.headers["retry-after"]) <= 86_400
    assert stage.rig.tokens(tenant=tenant) == {"input": 1_000, "cached_input": 0, "output": 0}


@pytest.mark.parametrize("sdk,stream", PATIENT)
def test_an_empty_bucket_raises_the_sdks_own_rate_limit_error(stage, sdk, stream):
    tenant = stage.rig.tenant("slow")
    stage.rig.spend(tenant, 1_300)
    refused = stage.refused(sdk, tenant, stream, 429)
    assert refused.code in ("rate_limit_exceeded", None)
    assert refused.headers["x-bursar-reason"] == "bucket_empty"
    # 300 cells are owed, and 3,600 s bring 1,000.
    assert 1_000 < int(refused.headers["retry-after"]) <= 3_600
    # Longer than a call of an SDK should sleep, at its defaults.
    until(lambda: stage.rig.metric("bursar_throttled_total", tenant=tenant) >= sdk.attempts, "the refusals' metric")
    assert stage.rig.metric("bursar_throttled_total", tenant=tenant) == sdk.attempts
    assert refused.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("tenant,status,code", [(None, 401, "tenant_required"), ("nobody", 403, "tenant_unknown")])
@pytest.mark.parametrize("sdk,stream", CALLS)
def test_a_caller_without_a_known_tenant_gets_what_the_provider_would_say(stage, sdk, stream, tenant, status, code):
    refused = stage.refused(sdk, tenant, stream, status)
    assert refused.code in (code, None)


@pytest.mark.parametrize("sdk,stream", INVALID)
def test_a_body_that_cannot_be_metered_is_a_bad_request(stage, sdk, stream):
    refused = stage.refused(sdk, stage.rig.tenant("ample"), stream, 400, limit=sdks.NO_LIMIT)
    assert refused.code in ("invalid_request_body", None)


# --- an answer that cannot be read ---


def compressed(answer):
    """In one part, so that no framing of it can be seen through the compression."""
    packed = gzip.compress(b"".join(answer.parts))
    return answers.Answer([packed], headers=answer.headers + [("content-encoding", "gzip")], framing=answer.framing)


# Some servers compress although identity was asked for.
@pytest.mark.parametrize("sdk,stream", [
    call for call in CALLS if call.values[0].wire and call.values[0].unpacks])
def test_an_answer_compressed_in_spite_of_identity_reaches_the_sdk_and_is_charged_by_estimate(stage, sdk, stream):
    tenant = stage.rig.tenant("ample")
    answer = compressed(sdk.wire(REPORTED, stream))
    in_headers = any("token-count" in name for name, _ in answer.headers)
    test_id, got = stage.call(sdk, tenant, stream, answer=answer)
    assert got.text == aimock.TEXT
    (request,) = stage.rig.upstream.of(test_id)
    assert request.all("accept-encoding") == ["identity"]
    entry = stage.rig.envoy.logged(test_id)
    assert entry["settled_by"] == ("usage" if in_headers else "estimate")
    assert entry["charged"] == sum(REPORTED) if in_headers else 0 < entry["charged"] < 1_000
    assert stage.rig.remaining(tenant) == INITIAL - entry["charged"]


# --- Bedrock with a signature ---


@pytest.mark.parametrize("stream", sdks.SIGNED.forms)
def test_a_signed_request_keeps_its_model_and_is_told_why(stage, stream):
    keeps_its_model(stage, sdks.SIGNED, *called_when_low(stage, sdks.SIGNED, stream), "request_signed")
