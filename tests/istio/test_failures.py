"""What operators choose: what happens while there is no module, or no configuration that bursar takes."""

import json

import lab
import pytest
from lab import ask

NOTHING = "oci://registry.local:26500/nothing:1"


def extension(change):
    (document,) = lab.load(lab.ROOT / "istio/traffic-extension.yaml")
    change(document["spec"]["wasm"])
    return document


@pytest.mark.parametrize("strategy, status", [("FAIL_RELOAD", 403), ("FAIL_CLOSE", 403), ("FAIL_OPEN", 200)])
def test_an_extension_whose_module_cannot_be_fetched(pod, strategy, status):
    pod(extension(lambda wasm: wasm.update(url=NOTHING, failStrategy=strategy)))
    for host in ("api.openai.com", "other.example"):
        answer = ask("acme", host=host)
        assert (answer.status, answer.decision) == (status, None), answer
        assert status == 200 or answer.text == "RBAC: access denied"


def configured(strategy, change=lambda configuration: None):
    def both(wasm):
        wasm["failStrategy"] = strategy
        change(wasm["pluginConfig"])
    return extension(both)


# `failStrategy` is about the module alone.
@pytest.mark.parametrize("strategy", ["FAIL_RELOAD", "FAIL_OPEN"])
def test_a_pod_that_starts_under_a_wrong_extension_answers_500_until_it_is_right(pod, strategy):
    mesh = pod(configured(strategy, lambda c: c["plans"]["gold"]["budget"].update(windw="day")))
    assert "plans.gold.budget" in mesh.log("agent")
    for host in ("api.openai.com", "other.example"):
        answer = ask("acme", host=host)
        assert (answer.status, answer.decision) == (500, None), answer
    lab.apply(configured(strategy))
    lab.until(lambda: ask("acme").decision == "admit", "the right configuration")


def ecds(rules=None, change=lambda configuration: None):
    (document,) = lab.load(lab.ROOT / "istio/envoyfilter-ecds.yaml")
    by_discovery, resource = document["spec"]["configPatches"]
    if rules is not None:
        by_discovery["patch"]["value"]["config_discovery"]["default_config"]["rules"] = rules
    plugin = resource["patch"]["value"]["typed_config"]["extension_config"]["typed_config"]["config"]
    configuration = json.loads(plugin["configuration"]["value"])
    change(configuration)
    plugin["configuration"]["value"] = json.dumps(configuration)
    return document


def misspell(configuration):
    configuration["plans"]["small"]["budget"]["windw"] = "day"


def test_a_filter_by_discovery_meters_and_takes_changes(pod):
    mesh = pod(ecds())
    assert (ask("acme").decision, ask(None).status, ask(None, host="other.example").status) == ("admit", 401, 200)
    refusals = len(mesh.refusals())
    lab.apply(ecds(change=misspell))
    lab.until(lambda: len(mesh.refusals()) > refusals, "the refusal")
    assert ask(None).status == 401


# (what default_config says, what callers get until the configuration is right)
@pytest.mark.parametrize("rules, status", [(None, 200), ({"action": "ALLOW"}, 403)], ids=["open", "closed"])
def test_a_pod_that_starts_under_a_wrong_filter_by_discovery_gets_ready(pod, rules, status):
    mesh = pod(ecds(rules, misspell))
    assert (ask("acme").status, ask("acme").decision) == (status, None)
    assert "bursar_build_info" not in lab.admin("/stats/prometheus")
    assert "plans.small.budget" in mesh.log("agent")
    lab.apply(ecds(rules))
    lab.until(lambda: ask("acme").decision == "admit", "the right configuration")
