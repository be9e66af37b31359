"""A flood of tenants that nobody configured, where each of them is given a plan."""

from harness.config import budget, plugin_config
from harness.http import head
from harness.rig import CHAT, chat_body
from harness.wait import in_parallel

INITIAL = 1_000_000
PLANS = {"ample": {"budget": budget(INITIAL)}, "free": {"budget": budget(1_000_000_000)}}
RULES = {"from": [{"header": "x-tenant-id"}], "missing": "reject", "unknown": {"plan": "free"}}


def flood(rig, numbers):
    """Pipelined requests, each of another tenant that nobody ever heard of."""
    body = chat_body()
    with rig.connect() as connection:
        for start in range(0, len(numbers), 25):
            batch = numbers[start:start + 25]
            connection.send(b"".join(
                head("POST", CHAT, [("host", "a"), ("x-tenant-id", f"flood-{number}"), ("content-length", len(body))])
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
