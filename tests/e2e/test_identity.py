"""Whose request it is: by header, property, JWT claim or certificate; and what happens to the rest."""

import pytest

from harness import certificates, http, tokens
from harness.config import budget, plugin_config
from harness.rig import chat_body

TYPES = "type.googleapis.com/envoy.extensions"
PLANS = {"gold": {"budget": budget(1_000_000)}, "free": {"budget": budget(500)}}


def config(tenants=(), **rules):
    identity = dict({"missing": "reject", "unknown": "reject"}, **rules)
    made = plugin_config(PLANS, tenant=identity)
    made["tenants"].update({name: {"plan": "gold"} for name in tenants})
    return made


def served_as(rig, response):
    """The tenant that paid, or the refusal's code."""
    return rig.log(response)["tenant"] if response.status == 200 else response.code


# --- several rules in order; a property ---


@pytest.fixture(scope="module")
def ordered(start_rig):
    rules = [{"header": "x-tenant-id"}, {"header": "x-team"}, {"property": ["xds", "node", "metadata", "NAMESPACE"]}]
    return start_rig(config(["team-a", "space-1"], **{"from": rules}),
                     node_metadata={"NAMESPACE": "space-1"})


def test_the_first_rule_that_yields_wins(ordered):
    tenant = ordered.tenant("gold")
    response = ordered.chat(tenant, headers=[("x-team", "team-a")])
    assert served_as(ordered, response) == tenant


def test_a_later_rule_answers_where_earlier_ones_yield_nothing(ordered):
    assert served_as(ordered, ordered.chat(None, headers=[("x-team", "team-a")])) == "team-a"
    assert served_as(ordered, ordered.chat("", headers=[("x-team", "team-a")])) == "team-a"


def test_a_property_of_the_node_names_the_tenant(ordered):
    assert served_as(ordered, ordered.chat(None)) == "space-1"


def test_an_unknown_name_of_an_earlier_rule_is_not_passed_over(ordered):
    assert served_as(ordered, ordered.chat("nobody", headers=[("x-team", "team-a")])) == "tenant_unknown"


# --- JWT ---


def add_jwt_filter(doc):
    filters = doc["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    provider = {"issuer": "test", "payload_in_metadata": "payload", "forward": True,
                "local_jwks": {"inline_string": tokens.key_set()}}
    filters.insert(0, {"name": "envoy.filters.http.jwt_authn", "typed_config": {
        "@type": f"{TYPES}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"test": provider},
        "rules": [{"match": {"prefix": "/"}, "requires": {"requires_any": {"requirements": [
            {"provider_name": "test"}, {"allow_missing": {}}]}}}]}})


@pytest.fixture(scope="module")
def by_token(start_rig):
    return start_rig(config(**{"from": [{"jwt_claim": "tenant"}]}), change=add_jwt_filter)


def bearer(claims, **how):
    return [("authorization", "Bearer " + tokens.signed(dict({"iss": "test"}, **claims), **how))]


def test_a_claim_of_a_verified_token_names_the_tenant(by_token):
    tenant = by_token.tenant("gold")
    response = by_token.chat(None, headers=bearer({"tenant": tenant}))
    assert served_as(by_token, response) == tenant


def test_a_token_without_the_claim_names_nobody(by_token):
    assert served_as(by_token, by_token.chat(None, headers=bearer({"sub": "x"}))) == "tenant_required"


def test_a_claim_that_is_no_string_names_nobody(by_token):
    for claim in (["gold-0"], {"a": 1}, None, ""):
        assert by_token.chat(None, headers=bearer({"tenant": claim})).status in (401, 403)


def test_a_request_without_a_token_names_nobody(by_token):
    tenant = by_token.tenant("gold")
    assert served_as(by_token, by_token.chat(tenant)) == "tenant_required"


@pytest.fixture(scope="module")
def planned(start_rig):
    made = config(**{"from": [{"jwt_claim": "tenant"}]})
    made["plan_from"] = [{"jwt_claim": "plan"}]
    return start_rig(made, change=add_jwt_filter)


def test_a_claim_names_the_plan_of_a_tenant_that_is_not_configured(planned):
    def ask(tenant, plan):
        response = planned.chat(None, headers=bearer({"tenant": tenant, "plan": plan}), max_tokens=1_000)
        return response, planned.log(response)

    response, entry = ask("stranger-1", "gold")
    assert (response.status, entry["tenant"], entry["plan"]) == (200, "stranger-1", "gold")
    response, entry = ask("stranger-2", "free")
    assert (response.code, entry["plan"]) == ("insufficient_quota", "free")
    assert ask("stranger-3", "bronze")[0].code == "tenant_unknown"


def test_a_forged_token_does_not_get_past_envoy(by_token):
    response = by_token.chat(None, headers=bearer({"tenant": "gold-0"}, secret=b"another secret"))
    assert response.status == 401
    assert by_token.log(response)["details"].startswith("jwt_authn_access_denied")


# --- mTLS ---


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    if certificates.OPENSSL is None:
        pytest.skip("the openssl command makes the certificates, and is not on PATH")
    return certificates.Authority(tmp_path_factory.mktemp("certificates"))


SPIFFE = "spiffe://cluster.local/ns/shop/sa/cart"


@pytest.fixture(scope="module")
def by_certificate(start_rig, authority):
    def use_tls(doc):
        chain = doc["static_resources"]["listeners"][0]["filter_chains"][0]
        chain["transport_socket"] = authority.server()

    return start_rig(config([SPIFFE], **{"from": [{"peer_uri_san": True}]}), change=use_tls)


def chat_over_tls(rig, tls):
    test_id = rig.new_id()
    with http.Connection(rig.envoy.port, tls=tls) as connection:
        rig.send(connection, test_id, "gold-1", [chat_body()])
        response = connection.read()
    response.id = test_id
    return response


def test_the_uri_in_the_peers_certificate_names_the_tenant(by_certificate, authority):
    tls = authority.client(*authority.issue("cart", f"URI:{SPIFFE}"))
    assert served_as(by_certificate, chat_over_tls(by_certificate, tls)) == SPIFFE


def test_a_certificate_of_an_unknown_peer_is_an_unknown_tenant(by_certificate, authority):
    tls = authority.client(*authority.issue("other", "URI:spiffe://cluster.local/ns/shop/sa/other"))
    assert served_as(by_certificate, chat_over_tls(by_certificate, tls)) == "tenant_unknown"


def test_a_certificate_without_a_uri_names_nobody(by_certificate, authority):
    tls = authority.client(*authority.issue("plain", "DNS:cart.shop"))
    assert served_as(by_certificate, chat_over_tls(by_certificate, tls)) == "tenant_required"


# --- missing and unknown tenants ---


BY_HEADER = {"from": [{"header": "x-tenant-id"}]}


def test_missing_pass_lets_it_through_unmetered(start_rig):
    rig = start_rig(config(**BY_HEADER, missing="pass"))
    body = chat_body(stream=True)
    response = rig.post(None, body)
    assert response.status == 200
    assert rig.seen(response).body == body
    assert not [name for name, _ in response.headers if name.startswith("x-bursar")]
    assert rig.log(response)["charged"] is None
    assert rig.metric("bursar_requests_total") == 0
    assert rig.chat("nobody").status == 403


def test_missing_can_be_one_tenant_of_its_own(start_rig):
    rig = start_rig(config(["anonymous"], **BY_HEADER, missing={"tenant": "anonymous"}))
    assert served_as(rig, rig.chat(None)) == "anonymous"
    assert rig.remaining("anonymous") == 1_000_000 - 15


def test_unknown_tenants_can_have_a_plan_each_on_its_own_account(start_rig):
    rig = start_rig(config(**BY_HEADER, unknown={"plan": "free"}))
    first = rig.chat("stranger", usage=(500, 0))
    assert (first.status, rig.log(first)["plan"]) == (200, "free")
    assert rig.chat("stranger").code == "insufficient_quota"
    assert rig.chat("another").status == 200
    assert rig.metric("bursar_requests_total", tenant="unconfigured") == 3
    assert rig.chat(None).code == "tenant_required"
