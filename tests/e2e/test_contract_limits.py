"""The contract's example of limits that stack, in a real Envoy: its windows, users and runs, and tenants above others."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import http
from harness.config import BY_HEADER
from harness.rig import CHAT, MODES, chat_body

# As the contract has it.
EXAMPLE = json.loads("""{
"subjects": {
  "user": {"from": [{"jwt_claim": "sub"}, {"header": "x-user-id"}], "missing": "pass"},
  "run":  {"from": [{"header": "x-run-id"}]}
},
"unmetered": "pass",
"hosts": ["api.openai.com"],
"held_bytes_per_worker": 67108864,
"plans": {"gold": {
  "limits": [
    {"name": "month",    "budget": {"initial_budget": 500, "unit": "usd", "window": "month", "timezone": "Europe/Berlin", "rollover": 0.5}},
    {"name": "day",      "budget": {"initial_budget": 40, "unit": "usd", "window": "day"}},
    {"name": "rpm",      "bucket": {"requests_per_window": 600, "window": "1m"}},
    {"name": "user-day", "per": "user", "budget": {"initial_budget": 5, "unit": "usd", "window": "day"}},
    {"name": "run",      "per": "run",  "budget": {"initial_budget": 2, "unit": "usd", "window": {"idle": "2h"}}},
    {"name": "opus",     "models": ["claude-opus-*"], "budget": {"initial_budget": 100, "unit": "usd", "window": "month"}}
  ],
  "concurrency": 20,
  "models": ["gpt-4o*", "claude-*"],
  "max_request": {"usd": 1.0},
  "hold": "ceiling",
  "weights": {"cached_input": 0.1, "output": 4}
}},
"tenants": {"corp": {"limits": []}, "acme": {"plan": "gold", "parent": "corp", "guaranteed": 0.3}}
}""")
LADDERS = [
    {"tiers": [{"name": "default", "model": "gpt-4o", "price": {"input": 2.5, "output": 10}},
               {"name": "compact", "model": "gpt-4o-mini", "price": {"input": 0.15, "output": 0.6}}]},
    {"tiers": [{"name": "best", "model": "claude-opus-4-1", "price": {"input": 15, "output": 75}},
               {"name": "quick", "model": "claude-haiku-4-5", "price": {"input": 1, "output": 5}}]},
]
# Of the default tier, a dollar buys so many tokens of input.
DOLLAR = 400_000


def config():
    """The example, with what it does not show, and a tenant for each test."""
    made = json.loads(json.dumps(EXAMPLE))
    made.update({"tenant": BY_HEADER, "ladders": LADDERS})
    own = {
        "few": {"limits": [{"name": "rpm", "bucket": {"requests_per_window": 2, "window": "1h"}}]},
        "dear": {"limits": [{"name": "opus", "budget": {"initial_budget": 1}}]},
        "kept": {"limits": [{"name": "opus", "budget": {"initial_budget": 1}}], "never_downgrade": True},
        **{f"team-{n}": {} for n in range(10)},
    }
    made["tenants"].update({name: {"plan": "gold", "parent": "corp", **more} for name, more in own.items()})
    day = {"unit": "tokens", "window": "day"}
    made["tenants"].update({
        "company": {"limits": [{"name": "company-day", "budget": {"initial_budget": 2_000, **day}}]},
        "open": {"limits": [{"name": "open-day", "visible": True, "budget": {"initial_budget": 2_000, **day}}]},
        "seen": {"parent": "open"},
        # Of a window without an end nothing is lent; of a second's, all of it before the second is over.
        "shared": {"limits": [{"name": "shared", "budget": {"initial_budget": 10_000, "unit": "tokens", "window": "none"}}]},
        "sure": {"parent": "shared", "guaranteed": 0.5}, "also": {"parent": "shared", "guaranteed": 0.2}, "guest": {"parent": "shared"},
        "lends": {"limits": [{"name": "lent", "budget": {"initial_budget": 1_000_000, "unit": "tokens", "window": "1s"}}]},
        "idle": {"parent": "lends", "guaranteed": 1.0}, "borrows": {"parent": "lends"},
        **{f"unit-{n}": {"parent": "company", "limits": [{"name": "unit-day", "budget": {"initial_budget": 1_500, **day}}]} for n in range(3)},
        "world": {"limits": []}, "region": {"parent": "world"}, "unit": {"parent": "region"}, "squad": {"parent": "unit"}, "deep": {"parent": "squad"},
    })
    return made


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    return start_rig(config(), mode=request.param)


def ask(rig, tenant, user=None, run=None, usage=None, host="api.openai.com", **body):
    """One chat completion, by the host that the example names."""
    test_id = rig.new_id()
    text = chat_body(**body)
    shown = [(name, value) for name, value in (("x-user-id", user), ("x-run-id", run)) if value]
    headers = rig.headers(tenant, test_id, usage, [("content-length", len(text)), *shown])
    headers = [(name, host if name == "host" else value) for name, value in headers]
    with rig.connect() as connection:
        connection.send(http.head("POST", CHAT, headers), text)
        response = connection.read()
    response.id = test_id
    if response.status == 200 and host == "api.openai.com":
        rig.log(response)
    return response


def refused(response):
    return response.status, response.code, response.header("x-bursar-limit")


def test_a_users_day_is_nobody_elses(rig):
    assert ask(rig, "acme", user="alice", usage=(5 * DOLLAR, 0)).status == 200
    answer = ask(rig, "acme", user="alice")
    assert refused(answer) == (429, "insufficient_quota", "user-day")
    assert "Limit: user-day." in answer.json()["error"]["message"]
    assert answer.header("x-should-retry") == "false" and 0 < int(answer.header("retry-after")) <= 86_400
    assert ask(rig, "acme", user="bob").status == 200
    assert ask(rig, "team-0", user="alice").status == 200
    assert ask(rig, "acme").status == 200, "its limits do not apply to who shows no user"
    assert rig.metric("bursar_limited_total", tenant="acme", limit="user-day", reason="budget_exhausted") == 1


def test_a_run_stops_whatever_the_day_has_left(rig):
    assert ask(rig, "team-1", run="one", usage=(2 * DOLLAR, 0)).status == 200
    answer = ask(rig, "team-1", run="one")
    assert refused(answer) == (429, "insufficient_quota", "run")
    assert 7_190 <= int(answer.header("retry-after")) <= 7_200
    assert ask(rig, "team-1", run="two").status == 200


def test_a_tenants_day_holds_beside_its_users(rig):
    for n in range(8):
        assert ask(rig, "team-2", user=f"user-{n}", usage=(5 * DOLLAR, 0)).status == 200
    assert refused(ask(rig, "team-2", user="another")) == (429, "insufficient_quota", "day")


def test_on_a_tie_the_subject_is_named(rig):
    for n in range(8):
        assert ask(rig, "team-3", user=f"user-{n}", usage=(5 * DOLLAR, 0)).status == 200
    assert refused(ask(rig, "team-3", user="user-0")) == (429, "insufficient_quota", "user-day")


def test_a_tenants_limit_replaces_its_plans_key_by_key(rig):
    assert [ask(rig, "few").status for _ in range(2)] == [200, 200]
    assert refused(ask(rig, "few")) == (429, "rate_limit_exceeded", "rpm")


def test_a_spent_limit_of_models_lowers_and_refuses_where_no_lower_tier_is_open(rig):
    model = "claude-opus-4-1"
    for tenant in ("dear", "kept"):
        assert ask(rig, tenant, model=model, usage=(70_000, 0)).status == 200
    lowered = ask(rig, "dear", model=model)
    assert (lowered.status, lowered.header("x-bursar-model")) == (200, "claude-haiku-4-5")
    entry = json.loads(rig.log(lowered)["bursar"])
    assert (entry["reason"], entry["limit"], entry.get("mark")) == ("budget_low", "opus", None)
    assert refused(ask(rig, "kept", model=model)) == (429, "insufficient_quota", "opus")


def test_other_models_and_dearer_requests_are_refused_before_any_limit(rig):
    assert refused(ask(rig, "team-4", model="o3")) == (403, "model_not_allowed", None)
    assert refused(ask(rig, "team-4", max_tokens=110_000)) == (400, "request_exceeds_maximum", "max_request")


def test_other_hosts_and_other_endpoints_pass_untouched(rig):
    other = ask(rig, "nobody", host="llm.test")
    assert (other.status, other.header("x-bursar-decision")) == (200, None)


def test_made_up_users_of_one_tenant_displace_nobody(rig):
    assert ask(rig, "team-5", user="alice", usage=(5 * DOLLAR, 0)).status == 200
    assert ask(rig, "team-6", user="alice", usage=(5 * DOLLAR, 0)).status == 200
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda n: ask(rig, "team-5", user=f"made-up-{n}", usage=(0, 0)), range(300)))
    assert {answer.status for answer in answers} == {200}
    for tenant in ("team-5", "team-6"):
        assert refused(ask(rig, tenant, user="alice")) == (429, "insufficient_quota", "user-day")


def test_a_parents_limit_counts_its_childrens_requests_and_is_never_exceeded_by_two_workers(rig):
    def charge(n):
        answer = ask(rig, f"unit-{n % 3}", usage=(60, 10), max_tokens=10, text="x" * 20)
        return rig.log(answer)["charged"] if answer.status == 200 else refused(answer)

    with ThreadPoolExecutor(8) as pool:
        charged = list(pool.map(charge, range(90)))
    admitted = [each for each in charged if isinstance(each, int)]
    assert 0 < sum(admitted) <= 2_000
    others = {each for each in charged if not isinstance(each, int)}
    assert others <= {(429, "insufficient_quota", "company-day"), (429, "rate_limit_exceeded", "company-day")}
    last = ask(rig, "unit-0", max_tokens=100)
    assert refused(last) == (429, "insufficient_quota", "company-day")
    assert "company-day" not in last.header("ratelimit"), "it is not visible"
    assert '"unit-day"' in last.header("ratelimit")


def test_a_visible_limit_of_a_parent_is_told(rig):
    assert '"open-day";q=2000' in ask(rig, "seen").header("ratelimit-policy")


def test_a_guaranteed_share_is_kept_whatever_siblings_ask_for_at_the_same_time(rig):
    def charge(n):
        answer = ask(rig, ("guest", "also")[n % 2], usage=(60, 10), max_tokens=10, text="x" * 20)
        return rig.log(answer)["charged"] if answer.status == 200 else refused(answer)

    with ThreadPoolExecutor(8) as pool:
        charged = list(pool.map(charge, range(140)))
    assert {each for each in charged if not isinstance(each, int)} <= {(429, "rate_limit_exceeded", "shared")}
    assert 0 < sum(each for each in charged if isinstance(each, int)) <= 5_000
    answer = ask(rig, "guest", max_tokens=1_000)
    assert refused(answer) == (429, "rate_limit_exceeded", "shared")
    assert (answer.header("x-bursar-reason"), answer.header("x-should-retry")) == ("budget_reserved", "false")
    assert answer.header("retry-after") is None, "no wait helps"
    assert rig.metric("bursar_limited_total", tenant="guest", limit="shared", reason="budget_reserved") > 0
    for _ in range(4):
        assert ask(rig, "sure", usage=(1_100, 0), max_tokens=100).status == 200
    assert refused(ask(rig, "sure", max_tokens=3_000)) == (429, "insufficient_quota", "shared")


def test_an_idle_tenants_share_is_lent_when_a_refusal_says(rig):
    """All of each second is one tenant's, who does not ask: near its end a sibling may have some of it."""
    answers = [ask(rig, "borrows", usage=(1, 1), max_tokens=300_000) for _ in range(20)]
    for answer in (answer for answer in answers if answer.status != 200):
        assert refused(answer) == (429, "rate_limit_exceeded", "lent")
        assert answer.header("x-bursar-reason") == "budget_reserved"
        assert 0 < int(answer.header("retry-after-ms")) <= 1_000
    assert ask(rig, "idle", usage=(1, 1), max_tokens=500_000).status == 200


def test_four_levels_of_parents_serve(rig):
    assert ask(rig, "deep").status == 200
