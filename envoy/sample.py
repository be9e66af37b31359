"""The tour for a user's own configuration: requests of some of its tenants, and how bursar decided them."""

import tour

TENANTS = 5
REQUESTS = 8   # of each; fewer if a real LLM is paid for them
FEW = 2
# The widest that a cell may be, in characters.
WIDEST = 40


class Sample:
    """`obstacle` is the reason why the tour cannot run. A configuration that bursar refuses is no obstacle here: bursar reports its faults
    when Envoy starts."""

    def __init__(self, port, key, config, few):
        self.port, self.requests = port, FEW if few else REQUESTS
        self.header, self.tenants, self.model = tenant_header(config), tenant_ids(config), first_model(config)
        self.client = tour.Client(port, key, self.header)
        self.title = f"{self.requests} requests each of {', '.join(self.tenants)}, for {self.model}"

    @property
    def obstacle(self):
        if self.header is None:
            return "in this configuration no header names the tenant, and the tour can send nothing else"
        if not self.tenants:
            return "this configuration names no tenants"
        if self.model is None:
            return "this configuration names no tiers, and so no model to request"
        return None

    def show(self):
        table = tour.Table(self.columns())
        for tenant in self.tenants:
            for _ in range(self.requests):
                reply = table.row(self.client.send(tenant, self.model))
                if reply.status != 200:
                    break
            table.end_of_row()
            if reply.status != 200:
                table.note(f"{reply.code or reply.error.get('type')}, retry-after {reply.header('retry-after')}: "
                           f"{reply.error.get('message', '')}")
        return True

    def examples(self, after_tour, with_key):
        if self.obstacle:
            return []
        return [(f"as {tenant}", tour.curl(self.port, f"{self.header}: {tenant}", 1, with_key, self.model))
                for tenant in self.tenants[:2]]

    def columns(self):
        """The columns of the standard tour, but wide enough for these tenants and for any model and tier."""
        wide = {"tenant": max(map(len, self.tenants)), "requested": len(self.model), "served": 20, "tier": 12}
        return [(name, min(WIDEST, max(width, wide.get(name, 0)))) for name, width in tour.COLUMNS]


def within(value, *path):
    """The value at this path; None if there is none."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and len(value) > step:
            value = value[step]
        else:
            return None
    return value


def tenant_header(config):
    """The header that names the tenant."""
    sources = within(config, "tenant", "from")
    if sources is None:
        return "x-tenant-id"
    headers = [within(source, "header") for source in sources] if isinstance(sources, list) else []
    return next((header for header in headers if isinstance(header, str)), None)


def tenant_ids(config):
    """The configuration's first tenants whose names can be sent in a header."""
    ids = within(config, "tenants")
    return [each for each in ids if each.isascii() and each.isprintable()][:TENANTS] if isinstance(ids, dict) else []


def first_model(config):
    """The best model of the first ladder."""
    model = within(config, "tiers", 0, "model") or within(config, "ladders", 0, "tiers", 0, "model")
    return model if isinstance(model, str) else None
