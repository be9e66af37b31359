"""Which tier a request is served by, and how the caller and the router are told."""

import pytest

from harness import answers
from harness.config import TIERS, bucket, budget, plugin_config
from harness.rig import HOLDING, MODES, STREAMING
from harness.wait import in_parallel

INITIAL = 100_000
PLANS = {
    "budgeted": {"budget": budget(INITIAL)},
    "marked": {"budget": budget(INITIAL), "low_water_mark": 0.4},
    "degrading": {"budget": budget(10_000), "on_exhausted": {"degrade": {"overdraft": 0.1}}},
    "bucketed": {"bucket": bucket(10_000, "1h", low_water_mark=0.5)},
    "daily": {"budget": budget(INITIAL, "day")},
}
DEFAULT = ("default", "gpt-4o", "admit", None)
STANDARD = ("standard", "gpt-4.1-mini", "downgrade", "budget_low")
COMPACT = ("compact", "gpt-4o-mini", "downgrade", "budget_low")


@pytest.fixture(scope="module", params=MODES)
def rig(start_rig, request):
    config = plugin_config(PLANS)
    config["tenants"]["loyal"] = {"plan": "budgeted", "never_downgrade": True}
    return start_rig(config, mode=request.param)


def test_a_tenant_goes_from_default_over_standard_to_compact_as_its_budget_runs_low(rig):
    tenant = rig.tenant("budgeted")
    full = rig.chat(tenant)
    assert (full.told, rig.seen(full).json()["model"]) == (DEFAULT, "gpt-4o")
    rig.log(full)
    rig.spend(tenant, 60_000)
    low = rig.chat(tenant)
    assert (low.told, rig.seen(low).json()["model"]) == (STANDARD, "gpt-4.1-mini")
    rig.log(low)
    rig.spend(tenant, 25_000)
    lowest = rig.chat(tenant)
    assert (lowest.told, rig.seen(lowest).json()["model"]) == (COMPACT, "gpt-4o-mini")


def test_a_tier_begins_below_its_mark_and_not_at_it(rig):
    tenant = rig.tenant("budgeted")
    rig.spend(tenant, INITIAL // 2)
    at_the_mark = rig.chat(tenant, usage=(1, 0))
    assert at_the_mark.told == DEFAULT
    rig.log(at_the_mark)
    assert rig.chat(tenant).told == STANDARD


def test_a_second_tenant_is_untouched_by_the_burst_of_the_first(rig):
    loud, quiet = rig.tenant("budgeted"), rig.tenant("budgeted")
    rig.spend(loud, 90_000)
    served = in_parallel(16, lambda n: rig.chat(quiet if n % 4 == 0 else loud), range(64))
    assert {each.told for each in served[::4]} == {DEFAULT}
    assert all(each.status == 429 or each.told == COMPACT for n, each in enumerate(served) if n % 4)
    rig.settle_all(served)
    assert sum(rig.tokens(tenant=quiet).values()) == 16 * 15
    assert rig.left(quiet) == INITIAL - 16 * 15


# A downgrade is announced in headers, for JSON and streams alike.
@pytest.mark.parametrize("stream", [False, True], ids=["json", "sse"])
def test_a_downgrade_is_told_in_headers(rig, stream):
    tenant = rig.tenant("budgeted")
    rig.spend(tenant, 90_000)
    response = rig.chat(tenant, stream=stream)
    assert response.status == 200
    assert response.told == COMPACT
    assert response.header("x-bursar-requested-model") == "gpt-4o"
    assert rig.log(response)["model"] == "gpt-4o-mini"


def test_the_access_log_tells_tenant_plan_tier_models_and_charge(rig):
    tenant = rig.tenant("budgeted")
    rig.spend(tenant, 60_000)
    entry = rig.log(rig.chat(tenant, usage=(30, 12, 10)))
    expected = {"tenant": tenant, "plan": "budgeted", "tier": "standard", "requested_model": "gpt-4o",
                "model": "gpt-4.1-mini", "decision": "downgrade", "reason": "budget_low", "output_tokens": 12,
                "cached_tokens": 10, "charged": 42, "remaining": 40_000 - 42, "settled_by": "usage"}
    assert {name: entry[name] for name in expected} == expected


def test_a_lower_model_that_was_asked_for_is_never_upgraded(rig):
    tenant = rig.tenant("budgeted")
    full = rig.chat(tenant, model="gpt-4o-mini")
    assert full.told == ("compact", "gpt-4o-mini", "admit", None)
    rig.log(full)
    rig.spend(tenant, 60_000)
    low = rig.chat(tenant, model="gpt-4o-mini")
    assert low.told == ("compact", "gpt-4o-mini", "admit", None)
    assert rig.seen(low).json()["model"] == "gpt-4o-mini"


def test_a_request_for_the_middle_model_keeps_it_until_the_lowest_mark(rig):
    tenant = rig.tenant("budgeted")
    rig.spend(tenant, 60_000)
    kept = rig.chat(tenant, model="gpt-4.1-mini")
    assert kept.told == ("standard", "gpt-4.1-mini", "admit", None)
    rig.log(kept)
    rig.spend(tenant, 25_000)
    assert rig.chat(tenant, model="gpt-4.1-mini").told == COMPACT


def test_a_tenant_that_is_never_downgraded_keeps_its_model(rig):
    rig.spend("loyal", 90_000)
    response = rig.chat("loyal")
    assert response.told == DEFAULT
    assert rig.seen(response).json()["model"] == "gpt-4o"


def test_a_plans_low_water_mark_is_the_last_tiers(rig):
    tenant = rig.tenant("marked")
    rig.spend(tenant, 65_000)
    assert rig.chat(tenant).told == COMPACT


def test_a_low_bucket_picks_the_last_tier(rig):
    tenant = rig.tenant("bucketed")
    rig.spend(tenant, 6_000)
    assert rig.chat(tenant).told == ("compact", "gpt-4o-mini", "downgrade", "bucket_low")


def test_an_exhausted_budget_degrades_within_its_overdraft_and_throttles_after_it(rig):
    tenant = rig.tenant("degrading")
    rig.spend(tenant, 10_000)
    within = rig.chat(tenant, usage=(1_000, 0))
    assert within.told == ("compact", "gpt-4o-mini", "downgrade", "budget_exhausted")
    assert rig.log(within)["charged"] == 1_000
    beyond = rig.chat(tenant)
    assert (beyond.status, beyond.code) == (429, "insufficient_quota")


def test_a_model_on_no_ladder_keeps_its_name_and_is_metered(rig):
    tenant = rig.tenant("budgeted")
    rig.spend(tenant, 90_000)
    response = rig.chat(tenant, model="o9-preview", usage=(40, 2))
    assert response.told[:3] == ("unlisted", "o9-preview", "admit")
    assert response.header("x-bursar-reason") == "model_unlisted"
    assert rig.seen(response).json()["model"] == "o9-preview"
    assert rig.log(response)["charged"] == 42
    assert rig.metric("bursar_tokens_total", tenant=tenant, model="other") == 42


def test_the_route_picks_the_cluster_by_tier_where_headers_are_held(rig):
    tenant = rig.tenant("budgeted")
    default = rig.chat(tenant)
    assert rig.log(default)["cluster"] == "llm"
    rig.spend(tenant, 90_000)
    compact = rig.chat(tenant)
    held = rig.mode == HOLDING
    assert rig.log(compact)["cluster"] == ("llm_compact" if held else "llm")
    assert rig.seen(compact).all("x-bursar-tier") == (["compact"] if held else [])
    assert rig.seen(default).all("x-bursar-tier") == (["default"] if held else [])


# A client may send headers under our names.
def test_a_clients_own_bursar_headers_reach_neither_router_nor_upstream(rig):
    forged = [("x-bursar-tier", "compact"), ("X-Bursar-Tier", "compact"), ("x-bursar-decision", "admit"),
              ("x-bursar-", "empty"), ("X-BURSAR-Anything", "1")]
    response = rig.chat(rig.tenant("budgeted"), headers=forged)
    request = rig.seen(response)
    ours = [pair for pair in request.headers if pair[0].lower().startswith("x-bursar")]
    assert ours in ([("x-bursar-tier", "default")], [])
    assert rig.mode == STREAMING or ours
    assert rig.log(response)["cluster"] == "llm"


def test_bursar_headers_are_removed_from_requests_that_are_not_metered_too(rig):
    response = rig.get("/v1/models", headers=[("x-bursar-tier", "compact"), ("x-bursar-x", "1")])
    assert not [name for name, _ in rig.seen(response).headers if name.startswith("x-bursar")]
    assert rig.log(response)["cluster"] == "llm"


def test_the_limits_are_told_in_openais_and_in_the_ietfs_headers(rig):
    response = rig.chat(rig.tenant("daily"))
    assert response.header("x-ratelimit-limit-tokens") == str(INITIAL)
    remaining = int(response.header("x-ratelimit-remaining-tokens"))
    assert INITIAL - 1_000 < remaining < INITIAL
    assert response.header("x-ratelimit-reset-tokens").endswith("s")
    assert response.header("ratelimit-policy") == f'"budget";q={INITIAL};w=86400'
    name, left, reset = response.header("ratelimit").split(";")
    assert (name, left) == ('"budget"', f"r={remaining}")
    assert 0 < int(reset[len("t="):]) <= 86_400


def test_an_upstreams_headers_of_the_same_names_do_not_stand_beside_ours(rig):
    answer = answers.json_answer("gpt-4o", answers.usage(1, 1))
    answer.headers += [("x-bursar-tier", "forged"), ("x-ratelimit-limit-tokens", "1"), ("x-request-id", "abc")]
    response = rig.chat(rig.tenant("daily"), answer=answer)
    assert response.all("x-bursar-tier") == ["default"]
    assert response.all("x-ratelimit-limit-tokens") == [str(INITIAL)]
    assert response.header("x-request-id") == "abc"


@pytest.mark.parametrize("times", [1, 2])
def test_each_header_of_ours_is_there_once_however_often_an_upstream_sends_it(rig, times):
    names = ["X-Bursar-Decision", "x-bursar-model", "x-ratelimit-limit-tokens", "X-RateLimit-Remaining-Tokens",
             "x-ratelimit-reset-tokens", "ratelimit-policy", "RateLimit"]
    answer = answers.json_answer("gpt-4o", answers.usage(1, 1))
    answer.headers += [(name, "forged") for name in names] * times
    response = rig.chat(rig.tenant("daily"), answer=answer)
    told = {name: response.all(name.lower()) for name in names}
    assert {name: len(values) for name, values in told.items()} == dict.fromkeys(names, 1)
    assert ["forged"] not in told.values()


def test_a_ladder_takes_the_models_that_match_its_globs(start_rig):
    config = plugin_config({"budgeted": PLANS["budgeted"]}, ladders=[{"match": ["gpt-4o-20*"], "tiers": TIERS}])
    del config["tiers"]
    rig = start_rig(config)
    tenant = rig.tenant("budgeted")
    dated = rig.chat(tenant, model="gpt-4o-2024-08-06")
    assert dated.told == ("default", "gpt-4o-2024-08-06", "admit", None)
    rig.log(dated)
    rig.spend(tenant, 90_000)
    assert rig.chat(tenant, model="gpt-4o-2024-08-06").told == COMPACT
    assert rig.chat(tenant, model="gpt-4").told[:3] == ("unlisted", "gpt-4", "admit")
