"""The tour of `make run`: real requests over loopback, and a table of how bursar decided them.

It relies on the plans in envoy.yaml: acme has plenty, globex a budget of 4000 tokens with tiers below 0.5 and 0.2,
initech a bucket of 1000 tokens per 10 s. A request reserves its body's bytes + max_tokens of the budget (about 490
here) and is charged what it used (about 250).
"""

import concurrent.futures
import http.client
import json
import re
import shlex
import time
from dataclasses import dataclass, field

MODEL = "gpt-4o"
# Real models answer this prompt at full length, as the stand-in does, so the tour runs alike with both.
PROMPT = (
    "Count upwards from one in English words, separated by commas, and go on until you are cut off. "
    "Write nothing else: no introduction, no line breaks, no digits, and no remark about the length of the answer."
)
MAX_TOKENS = 200
COLUMNS = (("tenant", 8), ("requested", 9), ("served", 13), ("tier", 9), ("decision", 10), ("reason", 17),
           ("status", 7), ("left", 11))
PATIENCE = 120  # seconds for one answer
ENOUGH_FOR_GLOBEX = 40  # requests that must suffice to spend its budget
BURST = 5  # requests at once that are more than initech's bucket holds
BURSTS = 5

# (tenant, requests at once, what happens after the tour, what happens without it). The requests to copy are small, so
# that what the tour left of globex's budget still suffices for some of them.
EXAMPLES = (
    ("acme", 1, "acme has plenty: admitted, and served by the requested model", None),
    ("globex", 1, "globex has little left after the tour: a lighter model serves the same request, until the rest is spent",
     "globex has 4000 tokens a day: lighter models serve it when half of that is spent, and again at a fifth"),
    ("initech", 6, "initech has 1000 tokens per 10 s: of six requests at once the last get a 429 with retry-after; "
     "after that time they pass", None),
)


class Unreachable(Exception):
    """The upstream or Envoy did not answer."""


class UpstreamRefused(Exception):
    """The upstream answered a request with an error."""


def body_text(max_tokens, prompt, model=MODEL):
    return json.dumps({"model": model, "max_tokens": max_tokens, "messages": [{"role": "user", "content": prompt}]})


def curl(port, tenant_header, at_once, with_key, model=MODEL):
    """A command for the user to copy. It sends one request and shows the whole answer, or several at once and shows only the headers."""
    tokens, output = (20, "-i") if at_once == 1 else (180, "-s -o /dev/null -D -")
    key = ' -H "authorization: Bearer $OPENAI_API_KEY"' if with_key else ""
    command = (f"curl {output} http://127.0.0.1:{port}/v1/chat/completions -H {shlex.quote(tenant_header)}"
               f" -H 'content-type: application/json'{key} \\\n  -d {shlex.quote(body_text(tokens, 'Hello', model))}")
    return command if at_once == 1 else f"(for i in $(seq {at_once}); do {command} & done; wait)"


@dataclass
class Reply:
    """A response, reduced to what the table shows."""

    tenant: str
    status: int
    headers: dict
    body: bytes
    at: float = field(default_factory=time.monotonic)

    def header(self, name):
        return self.headers.get(name, "-")

    @property
    def decision(self):
        return self.header("x-bursar-decision")

    @property
    def tier(self):
        return self.header("x-bursar-tier")

    @property
    def error(self):
        """The error object in the body of a refusal; empty if there is none."""
        try:
            error = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return {}
        return error if isinstance(error, dict) else {"message": str(error)}

    @property
    def code(self):
        return self.error.get("code")

    @property
    def tokens_left(self):
        """What is left of the budget, or of the bucket for a tenant without a budget."""
        budget = re.search(r'"budget";r=(\d+)', self.header("ratelimit"))
        return budget.group(1) if budget else self.header("x-ratelimit-remaining-tokens")

    def admitted(self, tier):
        return self.status == 200 and self.tier == tier and self.decision in ("admit", "downgrade")

    @property
    def is_bursars(self):
        """Whether bursar itself refused the request."""
        return self.decision in ("throttle", "refuse") or (self.code or "").startswith("tenant_")

    @property
    def is_envoys(self):
        """Whether Envoy itself answered, since the upstream did not: only an upstream's answer has this header."""
        return self.status in (502, 503, 504) and "x-envoy-upstream-service-time" not in self.headers

    def row(self):
        served = self.header("x-bursar-model") if self.status == 200 else "-"
        return (self.tenant, self.header("x-bursar-requested-model"), served, self.tier, self.decision,
                self.header("x-bursar-reason"), self.status, self.tokens_left)

    def alike(self, other):
        """Whether two replies differ only in what is left."""
        return self.row()[:-1] == other.row()[:-1]


class Client:
    """Sends chat requests to Envoy, each on a connection of its own."""

    def __init__(self, port, key, tenant_header="x-tenant-id"):
        self.port, self.key, self.tenant_header = port, key, tenant_header

    def send(self, tenant, model=MODEL):
        """Send one request; return the reply, if it is the upstream's answer or bursar's refusal."""
        headers = {"content-type": "application/json", self.tenant_header: tenant}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/v1/chat/completions", body_text(MAX_TOKENS, PROMPT, model), headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            reply = Reply(tenant, response.status, named, response.read())
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"no answer from Envoy: {type(error).__name__}: {error}") from None
        finally:
            connection.close()
        if reply.status == 200 or reply.is_bursars:
            return reply
        text = reply.error.get("message") or reply.body[:300].decode("utf-8", "replace").strip()
        if reply.is_envoys:
            raise Unreachable(f"Envoy answers {reply.status}: {text}")
        raise UpstreamRefused(f"the upstream answered {tenant}'s request with {reply.status}: {text}")

    def burst(self, tenant, count):
        """Send several requests at once; return their replies in the order of arrival, but refusals last."""
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            replies = list(pool.map(self.send, [tenant] * count))
        return sorted(replies, key=lambda reply: (reply.status != 200, reply.at))


class Table:
    """The table's rows: each reply is printed as it comes; replies with nothing new are only counted."""

    def __init__(self, columns=COLUMNS):
        self.columns = columns
        self.last, self.more = None, 0
        self._print([name for name, _ in columns])

    def row(self, reply):
        """Print a reply's row, or only count the reply if its row has nothing new."""
        if self.last and reply.alike(self.last):
            self.more += 1
        else:
            self.end_of_row()
            self._print(reply.row())
        self.last = reply
        return reply

    def end_of_row(self):
        if self.more:
            self.note(f"and {self.more} more like it, then left: {self.last.tokens_left}")
        self.last, self.more = None, 0

    @staticmethod
    def note(text):
        print(f"  `- {text}", flush=True)

    def _print(self, cells):
        *cells, left = cells
        text = "  ".join(str(cell).ljust(width) for cell, (_, width) in zip(cells, self.columns))
        print(f"{text}  {str(left).rjust(self.columns[-1][1])}", flush=True)


class Tour:
    """The tour of the three tenants in envoy.yaml."""

    title = "a tour of the tenants in envoy/envoy.yaml"

    def __init__(self, port, key):
        self.port = port
        self.client = Client(port, key)
        self.wanted = ["admitted", "downgraded to standard", "downgraded to compact", "throttled: budget spent",
                       "other tenant untouched", "throttled: bucket empty", "passed after the wait"]

    def show(self):
        """Run the tour; True if it showed everything that it should show."""
        self.table = Table()
        self.spend_globex_budget()
        self.empty_initech_bucket()
        if self.wanted:
            print(f"NOT SEEN: {', '.join(self.wanted)}", flush=True)
        return not self.wanted

    def examples(self, after_tour, with_key):
        """[(what it shows, command)]"""
        return [(after if after_tour or not without else without, curl(self.port, f"x-tenant-id: {tenant}", at_once, with_key))
                for tenant, at_once, after, without in EXAMPLES]

    # --- its two parts ---

    def spend_globex_budget(self):
        first = self.table.row(self.client.send("acme"))
        self.saw("admitted", first.admitted("default"))
        for _ in range(ENOUGH_FOR_GLOBEX):
            reply = self.table.row(self.client.send("globex"))
            self.saw("downgraded to standard", reply.admitted("standard"))
            self.saw("downgraded to compact", reply.admitted("compact"))
            if reply.status != 200:
                break
        self.table.end_of_row()
        if reply.status != 200:
            self.saw("throttled: budget spent", reply.status == 429 and reply.code == "insufficient_quota")
            self.table.note(f"{reply.code}, retry-after {reply.header('retry-after')} s (the window's end), "
                            f"x-should-retry {reply.header('x-should-retry')}")
        beside = self.table.row(self.client.send("acme"))
        self.saw("other tenant untouched", beside.admitted("default"))

    def empty_initech_bucket(self):
        for _ in range(BURSTS):
            replies = self.client.burst("initech", BURST)
            for reply in replies:
                self.table.row(reply)
            self.table.end_of_row()
            if replies[-1].status != 200:
                break
        refused = replies[-1]
        self.saw("throttled: bucket empty", refused.status == 429 and refused.code == "rate_limit_exceeded")
        milliseconds = refused.header("retry-after-ms")
        if not milliseconds.isdigit():
            return
        self.table.note(f"{refused.code}, retry-after {refused.header('retry-after')} s, "
                        f"retry-after-ms {milliseconds}: waiting exactly that long ...")
        time.sleep(max(0.0, refused.at + int(milliseconds) / 1000 - time.monotonic()))
        after = self.table.row(self.client.send("initech"))
        self.saw("passed after the wait", after.status == 200)

    def saw(self, what, really):
        if really and what in self.wanted:
            self.wanted.remove(what)
