"""The tour of `make run`: real requests over loopback, and a table of what bursar made of them.

It relies on the plans in envoy.yaml: acme has plenty, globex a budget of 4000 tokens with tiers below 0.5 and 0.2,
initech a bucket of 1000 tokens per 10 s. A request reserves its body's bytes + max_tokens of the budget (about 490
here) and is charged what it used (about 250).
"""

import concurrent.futures
import http.client
import json
import re
import time
from dataclasses import dataclass, field

MODEL = "gpt-4o"
# Real models answer this at full length, as the stand-in does, so the tour takes the same way with both.
PROMPT = (
    "Count upwards from one in English words, separated by commas, and go on until you are cut off. "
    "Write nothing else: no introduction, no line breaks, no digits, and no remark about the length of the answer."
)
MAX_TOKENS = 200
COLUMNS = (("tenant", 8), ("asked", 7), ("served", 13), ("tier", 9), ("decision", 10), ("reason", 17),
           ("status", 7), ("tokens left", 11))
PATIENCE = 120  # seconds for one answer
ENOUGH_FOR_GLOBEX = 40  # requests that must suffice to spend its budget
BURST = 5  # requests at once that are more than initech's bucket holds
BURSTS = 5

# The requests to copy are small, so that what the tour left of globex's budget still suffices for some of them.
EXAMPLES = (
    ("acme", "acme has plenty: admitted, and the model is the one asked for", 1),
    ("globex", "globex is low after the tour: the same request is served by a lighter model, until the rest is spent", 1),
    ("initech", "initech has 1000 tokens per 10 s: of six at once the last get a 429 with retry-after, and pass after it", 6),
)


def curl(port, tenant, at_once, with_key):
    """A command to copy: one request with its whole answer, or several at once with their headers only."""
    tokens, output = (20, "-i") if at_once == 1 else (180, "-s -o /dev/null -D -")
    body = json.dumps({"model": MODEL, "max_tokens": tokens, "messages": [{"role": "user", "content": "Hello"}]})
    key = ' -H "authorization: Bearer $OPENAI_API_KEY"' if with_key else ""
    command = (f"curl {output} http://127.0.0.1:{port}/v1/chat/completions -H 'x-tenant-id: {tenant}'"
               f" -H 'content-type: application/json'{key} \\\n  -d '{body}'")
    return command if at_once == 1 else f"(for i in $(seq {at_once}); do {command} & done; wait)"


@dataclass
class Reply:
    """What came back, reduced to what the table shows."""

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
    def code(self):
        """The error code in the body of a refusal."""
        try:
            return json.loads(self.body)["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def tokens_left(self):
        """Of the budget; of the bucket where the tenant has no budget."""
        budget = re.search(r'"budget";r=(\d+)', self.header("ratelimit"))
        return budget.group(1) if budget else self.header("x-ratelimit-remaining-tokens")

    def admitted(self, tier):
        return self.status == 200 and self.tier == tier and self.decision in ("admit", "downgrade")

    def row(self):
        served = self.header("x-bursar-model") if self.status == 200 else "-"
        return (self.tenant, self.header("x-bursar-requested-model"), served, self.tier, self.decision,
                self.header("x-bursar-reason"), self.status, self.tokens_left)

    def alike(self, other):
        """Differing in nothing but what is left."""
        return self.row()[:-1] == other.row()[:-1]


class Tour:
    def __init__(self, port, key):
        self.port, self.key = port, key
        self.last, self.more = None, 0
        self.wanted = ["admitted", "downgraded to standard", "downgraded to compact", "throttled: budget spent",
                       "other tenant untouched", "throttled: bucket empty", "passed after the wait"]

    def show(self):
        """Take the tour; True if everything was seen that it is to show."""
        self.print_row([name for name, _ in COLUMNS])
        try:
            self.spend_globex_budget()
            self.empty_initech_bucket()
        except (OSError, http.client.HTTPException) as error:
            print(f"the tour breaks off: {type(error).__name__}: {error}")
        if self.wanted:
            print(f"NOT SEEN: {', '.join(self.wanted)}", flush=True)
        return not self.wanted

    # --- its two parts ---

    def spend_globex_budget(self):
        first = self.row(self.send("acme"))
        self.saw("admitted", first.admitted("default"))
        for _ in range(ENOUGH_FOR_GLOBEX):
            reply = self.row(self.send("globex"))
            self.saw("downgraded to standard", reply.admitted("standard"))
            self.saw("downgraded to compact", reply.admitted("compact"))
            if reply.status != 200:
                break
        self.end_of_row()
        self.saw("throttled: budget spent", reply.status == 429 and reply.code == "insufficient_quota")
        self.note(f"{reply.code}, retry-after {reply.header('retry-after')} s (the window's end), "
                  f"x-should-retry {reply.header('x-should-retry')}")
        beside = self.row(self.send("acme"))
        self.saw("other tenant untouched", beside.admitted("default"))

    def empty_initech_bucket(self):
        for _ in range(BURSTS):
            replies = self.burst("initech")
            for reply in replies:
                self.row(reply)
            self.end_of_row()
            if replies[-1].status != 200:
                break
        refused = replies[-1]
        self.saw("throttled: bucket empty", refused.status == 429 and refused.code == "rate_limit_exceeded")
        milliseconds = refused.header("retry-after-ms")
        if not milliseconds.isdigit():
            return
        self.note(f"{refused.code}, retry-after {refused.header('retry-after')} s, "
                  f"retry-after-ms {milliseconds}: waiting exactly that long ...")
        time.sleep(max(0.0, refused.at + int(milliseconds) / 1000 - time.monotonic()))
        after = self.row(self.send("initech"))
        self.saw("passed after the wait", after.status == 200)

    # --- sending ---

    def send(self, tenant):
        body = json.dumps({"model": MODEL, "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": PROMPT}]})
        headers = {"content-type": "application/json", "x-tenant-id": tenant}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("POST", "/v1/chat/completions", body, headers)
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Reply(tenant, response.status, named, response.read())
        finally:
            connection.close()

    def burst(self, tenant):
        """Several requests at once; their replies, the refused ones last, in the order in which they came."""
        with concurrent.futures.ThreadPoolExecutor(BURST) as pool:
            replies = list(pool.map(self.send, [tenant] * BURST))
        return sorted(replies, key=lambda reply: (reply.status != 200, reply.at))

    # --- printing ---

    def row(self, reply):
        """Print a row, or count it where it tells nothing new."""
        if self.last and reply.alike(self.last):
            self.more += 1
        else:
            self.end_of_row()
            self.print_row(reply.row())
        self.last = reply
        return reply

    def end_of_row(self):
        if self.more:
            self.note(f"and {self.more} more like it, then left: {self.last.tokens_left}")
        self.last, self.more = None, 0

    @staticmethod
    def print_row(cells):
        *cells, left = cells
        text = "  ".join(str(cell).ljust(width) for cell, (_, width) in zip(cells, COLUMNS))
        print(f"{text}  {str(left).rjust(COLUMNS[-1][1])}", flush=True)

    @staticmethod
    def note(text):
        print(f"  `- {text}", flush=True)

    def saw(self, what, really):
        if really and what in self.wanted:
            self.wanted.remove(what)
