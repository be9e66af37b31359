"""What the access log tells of a request: one JSON text, which nothing that a client sends can break."""

import json

import pytest
from harness import config, http
from harness.envoy import FIELDS, render
from harness.rig import CHAT, MODES, chat_body
from harness.wait import until

PLANS = {"large": {"budget": config.budget(1_000_000)}, "small": {"budget": config.budget(1_000)},
         "low": {"budget": config.budget(1_000), "low_water_mark": 0.95}}


def single(doc):
    """Each field as a property of its own, beside the shipped format."""
    log = render.hcm(doc)["access_log"][0]["typed_config"]["log_format"]["json_format"]
    log["apart"] = {name: f"%FILTER_STATE(wasm.bursar_{name}:PLAIN)%" for name in FIELDS}


@pytest.fixture(scope="module", params=MODES)
def rig(request, start_rig):
    return start_rig(config.plugin_config(PLANS), mode=request.param, change=single)


@pytest.fixture(scope="module")
def named(start_rig):
    return start_rig(config.plugin_config(PLANS, log_fields=["tenant", "charged", "mark"]), change=single)


def apart(entry):
    return {name: value for name, value in entry["apart"].items() if value is not None}


def test_the_whole_decision_is_one_text_with_numbers_as_numbers(rig):
    tenant = rig.tenant("large")
    entry = rig.log(rig.chat(tenant, usage=(30, 12, 5)))
    assert json.loads(entry["bursar"]) == {
        "tenant": tenant, "plan": "large", "tier": "default", "requested_model": "gpt-4o", "model": "gpt-4o", "decision": "admit",
        "input_tokens": 30, "cached_tokens": 5, "output_tokens": 12, "charged": 42, "spend": 189, "settled_by": "usage", "remaining": 1_000_000 - 42}
    assert apart(entry) == {}


def test_a_downgrade_tells_its_limit_and_mark_and_a_refusal_its_limit(rig):
    tenant = rig.tenant("low")
    rig.spend(tenant, 100)
    entry = rig.log(rig.chat(tenant, usage=(1, 1)))
    assert (entry["tier"], entry["reason"], entry["mark"], entry["limit"]) == ("compact", "budget_low", 0.95, "budget")
    rig.spend(tenant, 898)
    entry = rig.log(rig.chat(tenant, usage=(1, 1)))
    assert (entry["decision"], entry["limit"], entry["remaining"], entry["mark"]) == ("throttle", "budget", 0, None)


def test_a_request_that_is_not_metered_leaves_the_line_valid(rig):
    response = rig.get("/v1/models?q=\"},\\", headers=[("user-agent", "\"quoted\"")])
    assert rig.log(response)["bursar"] is None


@pytest.mark.parametrize("model", ["a\"b", "back\\slash", "\u0000\u001f\u007f", "gr\u00fcn\u2028", "\",\"charged\":0,\"x\":\""])
def test_no_model_breaks_the_text(rig, model):
    tenant = rig.tenant("large")
    entry = rig.log(rig.chat(tenant, model=model, usage=(3, 4)))
    assert (entry["tenant"], entry["charged"], entry["tier"]) == (tenant, 7, "unlisted")
    shown = "".join(c if " " <= c <= "~" else "?" for c in model)
    assert entry["requested_model"] == shown


def test_the_fields_that_are_asked_for_are_properties_of_their_own_too(named):
    tenant = named.tenant("large")
    entry = named.log(named.chat(tenant, usage=(30, 12)))
    assert apart(entry) == {"tenant": tenant, "charged": "42"}
    assert entry["output_tokens"] == 12


def test_a_client_that_leaves_is_told_of_too(named):
    tenant, test_id = named.tenant("large"), named.new_id()
    before = named.envoy.read_from_clients()
    with named.connect() as connection:
        sent = http.head("POST", CHAT, named.headers(tenant, test_id, more=[("content-length", 9_999)])) + chat_body()
        connection.send(sent)
        until(lambda: named.envoy.read_from_clients() >= before + len(sent), "Envoy to read the request")
    entry = named.envoy.logged(test_id)
    assert (entry["tenant"], apart(entry)["tenant"]) == (tenant, tenant)
