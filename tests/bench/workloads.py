"""What is asked: requests as OpenAI's SDK for Python writes them, with `model` behind the messages."""

import json
from dataclasses import dataclass

from stage import ROOT

ASKED, SERVED = "gpt-4o", "gpt-4o-mini"
TENANT = "tenant-0000000"   # its digits are exchanged where a run is of many
PROMPT, COMPLETION = 412, 96   # tokens, as load/src/answers.rs reports them
USED = PROMPT + COMPLETION
EVENTS = 200   # of a streamed answer
KIB, MIB = 1 << 10, 1 << 20
# Conversations in several tongues, with code in them: quotes, escapes and many bytes that are no ASCII.
TEXTS = ("english", "python", "german", "json", "english", "rust", "chinese", "english", "russian", "python")


@dataclass(frozen=True)
class Workload:
    name: str
    says: str           # in a table's head
    size: int           # bytes of the request's body
    connections: int
    requests: int       # of a sample
    answer: str = "json"
    rate: int = 0       # a second; 0: as fast as they are answered
    small: bool = False   # connection buffers of 32 KiB instead of 4 MiB

    def head(self):
        lines = ["POST /v1/chat/completions HTTP/1.1", "host: api.openai.com", "content-type: application/json",
                 "accept: application/json", "accept-encoding: gzip, deflate", "user-agent: OpenAI/Python 2.8.1",
                 "authorization: Bearer sk-none", "x-stainless-lang: python", f"x-tenant-id: {TENANT}",
                 f"x-bench: {self.answer}"]
        return "".join(line + "\r\n" for line in lines).encode()

    def body(self):
        rest = {"model": ASKED, "max_tokens": 256}
        if self.answer != "json":
            rest.update(stream=True, stream_options={"include_usage": True})
        return body(self.size, rest)


WORKLOADS = (
    Workload("2k", "2 KB", 2 * KIB, 16, 4_000),
    Workload("128k", "128 KB", 128 * KIB, 8, 1_200),
    Workload("1m", "1 MB", MIB, 4, 240),
    Workload("1m-32k", "1 MB, buffers of 32 KiB", MIB, 4, 240, small=True),
    Workload("sse", "SSE, 200 events at once", 2 * KIB, 16, 1_600, answer="burst"),
    Workload("paced", "SSE, one event at a time", 2 * KIB, 16, 96, answer="paced"),
    Workload("first", "one stream alone", 2 * KIB, 1, 12, answer="paced"),
    # rounds.py sets its rate to half of what Envoy alone bears.
    Workload("rate", "half of the load that Envoy alone bears, 2 KB", 2 * KIB, 64, 4_000, rate=2_000),
)
BY_NAME = {workload.name: workload for workload in WORKLOADS}


def body(size, rest):
    """A chat of exactly so many bytes."""
    turns = [{"role": "developer", "content": "You are a helpful assistant. Answer briefly, and say so if you do not know."}]
    texts = conversation()
    while len(dump(turns, rest)) < size - 200:
        left = size - 200 - len(dump(turns, rest))
        text = next(texts)
        # Cut at a character, not within one.
        turns.append({"role": "assistant" if len(turns) % 2 == 0 else "user", "content": text.encode()[:left].decode(errors="ignore")})
        if left > 64 * KIB:   # a long turn at a time is enough where much is to come
            turns[-1]["content"] += "".join(next(texts) for _ in range(15))
    turns.append({"role": "user", "content": ""})
    turns[-1]["content"] = "?" * (size - len(dump(turns, rest)))
    return dump(turns, rest)


def conversation():
    texts = {name: (ROOT / f"tests/estimates/texts/{name}.txt").read_text(encoding="utf-8") for name in TEXTS}
    while True:
        yield from (texts[name] for name in TEXTS)


def dump(turns, rest):
    return json.dumps({"messages": turns, **rest}, ensure_ascii=False, separators=(",", ":")).encode()
