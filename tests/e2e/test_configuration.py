"""Configuration: a bad one is refused by name and reason, a new one works at once and keeps what was spent."""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import answers, envoy
from harness.config import budget, plugin_config
from harness.rig import chat_body

GOLD = {"gold": {"budget": budget(1_000)}}


def broken(path, value):
    """A good configuration with one value exchanged."""
    config = json.loads(json.dumps(plugin_config(GOLD, tenants={"acme": {"plan": "gold"}})))
    *parents, last = path
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


BAD = {
    "empty": ("", ["the configuration is empty"]),
    "no_json": ("{", ["JSON", "json", "EOF"]),
    "an_array": ("[]", ["not a JSON object"]),
    "unknown_key": (broken(["colour"], "red"), ["colour"]),
    "unknown_key_within": (broken(["plans", "gold", "budget", "windw"], "day"), ["plans.gold.budget"]),
    "zero_window": (broken(["plans", "gold", "budget", "window"], "0s"), ["plans.gold.budget.window: "]),
    "odd_window": (broken(["plans", "gold", "budget", "window"], "fortnight"), ["plans.gold.budget.window: "]),
    "wrong_type": (broken(["plans", "gold", "budget", "initial_budget"], "much"),
                   ["plans.gold.budget.initial_budget: "]),
    "negative": (broken(["plans", "gold", "budget", "initial_budget"], -1), ["plans.gold.budget.initial_budget: "]),
    "overflow": (broken(["plans", "gold", "budget", "initial_budget"], 1e30), ["plans.gold.budget.initial_budget: "]),
    "unknown_plan": (broken(["tenants", "acme", "plan"], "silver"), ["tenants.acme.plan: "]),
    "unknown_plan_of_unknown_tenants": (broken(["tenant"], {"from": [{"header": "x-t"}], "unknown": {"plan": "none"}}),
                                        ["tenant.unknown.plan: "]),
    "no_price_for_dollars": (broken(["plans", "gold", "budget", "unit"], "usd"), ["price"]),
}
for tier in BAD["no_price_for_dollars"][0]["tiers"]:
    del tier["price"]


def refusal(folder, config, change=None):
    """What Envoy logs when it cannot start with this plugin configuration."""
    started = envoy.Envoy(folder, envoy.document(config, 9, change=change))
    try:
        assert started.wait_exit() != 0
    finally:
        started.kill()
    return started.log()


# A bad configuration is refused with its path and the cure, and the old one stays.
@pytest.mark.parametrize("name", list(BAD))
def test_envoy_does_not_start_with_a_bad_configuration_and_says_where_and_why(tmp_path, name):
    config, words = BAD[name]
    log = refusal(tmp_path, config)
    assert "Unable to create Wasm" in log
    assert any(word in log for word in words), log[-3000:]
    assert "panicked" not in log


def test_a_struct_instead_of_a_string_value_is_refused_with_the_cure(tmp_path):
    def use_struct(doc):
        config = envoy.render.wasm_config(doc)
        value = json.loads(config["configuration"]["value"])
        config["configuration"] = {"@type": "type.googleapis.com/google.protobuf.Struct", "value": value}

    log = refusal(tmp_path, plugin_config(GOLD), use_struct)
    assert "google.protobuf.StringValue" in log
    assert "panicked" not in log


def test_a_missing_configuration_is_refused_with_the_cure(tmp_path):
    log = refusal(tmp_path, plugin_config(GOLD), lambda doc: envoy.render.wasm_config(doc).pop("configuration"))
    assert "Unable to create Wasm" in log
    assert "configuration" in log and "panicked" not in log


def test_integers_may_be_written_as_floats(start_rig):
    text = json.dumps(plugin_config({"gold": {"budget": budget("@")}})).replace('"@"', "1e6")
    rig = start_rig(dict(json.loads(text), hold_headers=True))
    assert rig.chat(rig.tenant("gold")).header("x-ratelimit-limit-tokens") == "1000000"


# --- while it runs ---


@pytest.fixture
def rig(start_rig):
    return start_rig(plugin_config(GOLD), lds=True)


def with_limit(tokens):
    return plugin_config({"gold": {"budget": budget(tokens)}})


# A limit may be raised, or lowered below what is spent, at any time. Configuration is edited and renamed; what was
# spent stays.
def test_a_raised_limit_works_at_once_and_keeps_what_was_spent(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 1_000)
    assert rig.chat(tenant).code == "insufficient_quota"
    rig.envoy.update(with_limit(10_000))
    response = rig.chat(tenant)
    assert (response.status, response.header("x-ratelimit-limit-tokens")) == (200, "10000")
    assert rig.log(response)["remaining"] == 10_000 - 1_000 - 15


def test_a_limit_lowered_below_what_is_spent_refuses_and_neither_wraps_nor_panics(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 600)
    rig.envoy.update(with_limit(500))
    response = rig.chat(tenant)
    assert (response.status, response.code) == (429, "insufficient_quota")
    assert response.header("x-ratelimit-remaining-tokens") == "0"
    rig.envoy.update(with_limit(2_000))
    assert rig.log(rig.chat(tenant))["remaining"] == 2_000 - 600 - 15


def test_a_renamed_plan_keeps_what_was_spent(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 600)
    rig.envoy.update(plugin_config({"gold": GOLD["gold"], "platinum": {"budget": budget(5_000)}},
                                   tenants={tenant: {"plan": "platinum"}}))
    entry = rig.log(rig.chat(tenant))
    assert (entry["plan"], entry["remaining"]) == ("platinum", 5_000 - 600 - 15)


def test_a_bad_update_keeps_the_old_configuration_serving(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 100)
    rig.envoy.update(BAD["zero_window"][0], accepted=False)
    assert "plans.gold.budget.window: " in rig.envoy.log()
    responses = [rig.chat(tenant) for _ in range(8)]   # a new connection each, so that both workers are asked
    rig.settle_all(responses)
    assert {response.header("x-ratelimit-limit-tokens") for response in responses} == {"1000"}
    assert rig.remaining(tenant) == 1_000 - 100 - 8 * 15


def ten_megabytes_of_tenants(**over):
    """Each with a limit of its own, besides those on the plan."""
    config = plugin_config(GOLD)
    config["tenants"].update({f"tenant-{number}": {"budget": budget(1_000 + number)} for number in range(111_000)})
    config["tenants"].update(over)
    assert len(json.dumps(config)) > 10_000_000
    return config


def test_ten_megabytes_of_tenants_are_loaded_or_refused_by_name(rig):
    tenant = rig.tenant("gold")
    rig.spend(tenant, 100)
    rig.envoy.update(ten_megabytes_of_tenants(last={"plan": "gold"}), seconds=60)
    responses = [rig.chat("tenant-99999") for _ in range(8)]   # on both workers
    assert {response.header("x-ratelimit-limit-tokens") for response in responses} == {"100999"}
    assert rig.chat("last").status == 200
    assert rig.chat("nobody").status == 403
    assert rig.left(tenant) == 1_000 - 100

    rig.envoy.update(ten_megabytes_of_tenants(last={"plan": "silver"}), accepted=False, seconds=60)
    assert "tenants.last.plan: " in rig.envoy.log()
    assert rig.chat("last").status == 200
    assert rig.left(tenant) == 1_000 - 100


def test_a_request_in_flight_while_the_limit_changes_is_settled_once(rig):
    tenant, gate = rig.tenant("gold"), answers.Gate()
    test_id = rig.new_id(answers.json_answer("gpt-4o", answers.usage(40, 2), before=gate.passed))
    with rig.connect() as connection:
        rig.send(connection, test_id, tenant, [chat_body()])
        gate.wait_until_reached()
        rig.envoy.update(with_limit(10_000), drained=False)
        gate.open()
        assert connection.read().status == 200
    assert rig.envoy.logged(test_id)["charged"] == 42
    rig.envoy.wait_drained()
    assert rig.log(rig.chat(tenant))["remaining"] == 10_000 - 42 - 15


def named(tenant_limits):
    """A change of the configuration that gives the one tenant `tenant_limits`."""
    return lambda tenant: plugin_config(GOLD, tenants={tenant: tenant_limits})


CHANGES = {
    "limit_raised": (named({"budget": budget(5_000)}), 5_000),
    "limit_lowered": (named({"budget": budget(700)}), 700),
    "window_changed": (named({"budget": budget(1_000, "month")}), 1_000),
    "another_plan": (lambda tenant: plugin_config({"platinum": {"budget": budget(3_000)}},
                                                  tenants={tenant: {"plan": "platinum"}}), 3_000),
    "another_ladder": (lambda tenant: plugin_config(GOLD, tiers=[{"name": "only", "model": "gpt-5"}],
                                                    tenants={tenant: {"plan": "gold"}}), 1_000),
    "removed": (lambda tenant: plugin_config(GOLD, tenants={}), None),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_what_was_spent_and_is_in_flight_outlives_a_change_of_the_configuration(rig, change):
    config, limit = CHANGES[change]
    tenant, gate = rig.tenant("gold"), answers.Gate()
    rig.spend(tenant, 400)
    test_id = rig.new_id(answers.json_answer("gpt-4o", answers.usage(190, 10), before=gate.passed))
    with rig.connect() as connection:
        rig.send(connection, test_id, tenant, [chat_body()])
        gate.wait_until_reached()
        rig.envoy.update(config(tenant), drained=False)
        gate.open()
        assert connection.read().status == 200
    assert rig.envoy.logged(test_id)["charged"] == 200
    rig.envoy.wait_drained()
    if limit is None:
        assert rig.chat(tenant).code == "tenant_unknown"
    else:
        assert rig.left(tenant) == limit - 600
    rig.envoy.update(plugin_config(GOLD))
    assert rig.left(tenant) == 1_000 - 600


def test_no_request_fails_and_none_is_lost_while_the_configuration_changes_under_load(rig):
    tenant, changed = rig.tenant("gold"), threading.Event()
    rig.envoy.update(with_limit(10_000_000))

    def client(_):
        responses = []
        while not changed.is_set():
            responses.append(rig.chat(tenant, usage=(10, 5)))
        return responses

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client, n) for n in range(4)]
        try:
            for limit in (11_000_000, 12_000_000, 13_000_000, 14_000_000):
                rig.envoy.update(with_limit(limit), drained=False)
        finally:
            changed.set()
        responses = [response for client in clients for response in client.result()]
    assert {response.status for response in responses} == {200}
    rig.settle_all(responses)
    rig.envoy.wait_drained()
    assert rig.left(tenant) == 14_000_000 - 15 * len(responses)


def test_the_version_is_in_the_log_and_in_the_metrics(rig):
    version = re.search(r'^version = "(.*)"', (envoy.ROOT / "Cargo.toml").read_text(encoding="utf-8"), re.M)[1]
    assert f"bursar {version} has its configuration" in rig.envoy.log()
    assert rig.envoy.metric("bursar_build_info", version=version) == 1
