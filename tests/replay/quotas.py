"""An honest LLM (upstream.py) whose models have quotas, counted as Azure OpenAI documents that it counts.

    python quotas.py MINUTE model=TOKENS_A_MINUTE ...

Tokens: for each request what its prompt has and its `max_tokens` allows, when it comes, in windows of a minute (which may take fewer
seconds here). Requests: six a minute for each 1,000 tokens, in windows of a sixth of a minute. What does not fit is answered 429 with the
time until the window's end. Beside the paths of upstream.py:

    GET /quotas      {model: {"served", "refused", "healed": [[when a window with refusals ended, when a request was served next], ...]}}

Times are those of `time.monotonic`.

Source: learn.microsoft.com, Azure OpenAI, "Manage quota: understanding rate limits".
"""

import asyncio
import json
import sys
import time

import upstream
import wire

WINDOWS_OF_REQUESTS = 6   # in a minute
REQUESTS_PER_TOKEN = 6 / 1_000


class Window:
    """So much in each window of so many seconds, which begin one after the other."""

    def __init__(self, limit, seconds):
        self.limit, self.seconds = limit, seconds
        self.end, self.used = 0.0, 0

    def left(self, now):
        if now >= self.end:
            self.end, self.used = now - now % self.seconds + self.seconds, 0
        return self.limit - self.used


class Quota:
    """Of one model."""

    def __init__(self, tokens, minute):
        self.tokens = Window(tokens, minute)
        self.requests = Window(round(tokens * REQUESTS_PER_TOKEN / WINDOWS_OF_REQUESTS), minute / WINDOWS_OF_REQUESTS)
        self.served = self.refused = 0
        self.refused_until = None   # when there is room again after a refusal, until it is used
        self.healed = []

    def take(self, tokens, now):
        """Seconds until there may be room again; None if there is."""
        lacking = [window for window, needed in ((self.tokens, tokens), (self.requests, 1)) if window.left(now) < needed]
        if lacking:
            self.refused += 1
            self.refused_until = max(window.end for window in lacking)
            return self.refused_until - now
        self.served += 1
        self.tokens.used += tokens
        self.requests.used += 1
        if self.refused_until is not None and now >= self.refused_until:
            self.healed.append((self.refused_until, now))
            self.refused_until = None
        return None

    def headers(self, now):
        return [("x-ratelimit-limit-tokens", self.tokens.limit),
                ("x-ratelimit-remaining-tokens", self.tokens.left(now)),
                ("x-ratelimit-limit-requests", self.requests.limit),
                ("x-ratelimit-remaining-requests", self.requests.left(now))]


class Upstream(upstream.Upstream):
    def __init__(self, quotas, minute):
        super().__init__({})
        self.quotas = {model: Quota(tokens, minute) for model, tokens in quotas.items()}

    def control(self, path):
        if path == "/quotas":
            return {model: {"served": quota.served, "refused": quota.refused, "healed": quota.healed}
                    for model, quota in self.quotas.items()}
        return super().control(path)

    async def chat(self, writer, headers, ask):
        quota = self.quotas.get(ask["model"])
        if quota is None:
            return await super().chat(writer, headers, ask)
        now = time.monotonic()
        prompt, output, _ = headers["x-replay"].split(",")
        wait = quota.take(int(prompt) + ask.get("max_tokens", int(output)), now)
        more = quota.headers(now)
        if wait is None:
            return await super().chat(Told(writer, more), headers, ask)
        writer.write(refusal(wait, more))


class Told:
    """A writer of one answer, whose head has more headers."""

    def __init__(self, writer, headers):
        self.writer = writer
        self.headers = "".join(f"\r\n{name}: {value}" for name, value in headers).encode()

    def write(self, data):
        if self.headers:
            first, rest = data.split(b"\r\n", 1)
            data, self.headers = first + self.headers + b"\r\n" + rest, b""
        self.writer.write(data)


def refusal(wait, headers):
    body = json.dumps({"error": {"code": "429", "message": "The deployment has exceeded its rate limit. "
                                 f"Please retry after {round(wait) or 1} seconds."}}).encode()
    return wire.head("HTTP/1.1 429 Too Many Requests", [
        ("content-type", "application/json"), ("content-length", len(body)),
        ("retry-after", round(wait) or 1), ("retry-after-ms", round(wait * 1_000)), *headers]) + body


if __name__ == "__main__":
    pairs = (word.rsplit("=", 1) for word in sys.argv[2:])
    asyncio.run(upstream.main(Upstream({model: int(tokens) for model, tokens in pairs}, float(sys.argv[1]))))
