"""A flood of tenants that nobody configured, where each of them is given a plan; and of users whom one tenant makes up."""

from harness.config import BY_HEADER, TIERS, budget, plugin_config
from harness.http import head
from harness.rig import CHAT, chat_body
from harness.wait import in_parallel

INITIAL = 1_000_000
PLANS = {"ample": {"budget": budget(INITIAL)}, "free": {"budget": budget(1_000_000_000)}}
RULES = {"from": [{"header": "x-tenant-id"}], "missing": "reject", "unknown": {"plan": "free"}}


def flood(rig, numbers, named=lambda number: [("x-tenant-id", f"flood-{number}")]):
    """Pipelined requests, each of another tenant that nobody ever heard of, or of another user."""
    body = chat_body()
    with rig.connect() as connection:
        for start in range(0, len(numbers), 25):
            batch = numbers[start:start + 25]
            connection.send(b"".join(
                head("POST", CHAT, [("host", "a"), *named(number), ("content-length", len(body))])
                + body for number in batch))
            assert {connection.read().status for _ in batch} == {200}


# case 44
def test_a_flood_of_invented_tenants_touches_neither_metrics_nor_a_configured_tenant(start_rig):
    rig = start_rig(plugin_config(PLANS, tenant=RULES))
    tenant = rig.tenant("ample")
    rig.spend(tenant, 123)
    in_parallel(8, lambda share: flood(rig, range(share * 625, share * 625 + 625)), range(8))
    assert rig.remaining(tenant) == INITIAL - 123
    rig.spend(tenant, 7)
    assert rig.remaining(tenant) == INITIAL - 130
    told = {dict(labels).get("tenant") for _, labels in rig.metrics()} - {None}
    assert told == {tenant, "unconfigured"}


def test_a_flood_of_users_of_one_tenant_touches_neither_metrics_nor_users_that_are_there(start_rig):
    """A million of them against the same tables: `src/admission/subjects.rs`, in a release build."""
    limits = [{"name": "user-day", "per": "user", "budget": budget(INITIAL, "day")}]
    users = {"from": [{"header": "x-user-id"}]}
    tenants = {"acme": {"limits": limits}, "globex": {"limits": limits}}
    rig = start_rig({"tenant": BY_HEADER, "tiers": TIERS, "subjects": {"user": users}, "tenants": tenants})

    def ask(tenant, user, usage=None):
        answer = rig.chat(tenant, usage=usage, headers=[("x-user-id", user)])
        return rig.log(answer)["charged"] if answer.status == 200 else answer.header("x-bursar-limit")

    for tenant in tenants:
        assert ask(tenant, "alice", usage=(INITIAL - 5, 0)) == INITIAL - 5

    def made_up(number):
        return [("x-tenant-id", "acme"), ("x-user-id", f"made-up-{number}")]

    # Those who find no slot share a budget, which is large enough.
    in_parallel(8, lambda share: flood(rig, range(share * 625, share * 625 + 625), made_up), range(8))
    for tenant in tenants:
        assert ask(tenant, "alice") == "user-day"
    assert ask("globex", "bob") is not None, "another tenant's users still have slots"
    labels = {value for _, labels in rig.metrics() for _, value in labels}
    assert "acme" in labels and not any(value.startswith("made-up") or value == "alice" for value in labels)
