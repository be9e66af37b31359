"""What the upstream says: OpenAI chat completions, as JSON and as server-sent events."""

import json
import threading

from .wait import DEADLINE_SECONDS

TEXT = ("Es ", "grüßt ", "der ", "Upstream ", "☕.")


class Answer:
    """A scripted HTTP answer.

    `parts` are bytes, or callables that are called (and waited for) between the bytes.
    With `edges` the next part leaves only when Envoy has read the one before, so each part is one read of Envoy's.
    `framing`: "length" (content-length), "chunked" (a chunk per part), "close" (until the connection ends).
    `then`: "keep", "close" or "reset" the connection once all parts are out; with "length" the declared length
    is `length` if given, so that an answer can be cut short. `trailers` need "chunked".
    `usage` is what this answer reports, for the tally.
    """

    def __init__(self, parts, status=200, headers=(), framing="length", edges=False, then="keep", length=None,
                 usage=None, trailers=()):
        self.parts = [parts] if isinstance(parts, bytes) else list(parts)
        self.status = status
        self.headers = list(headers)
        self.framing = framing
        self.edges = edges
        self.then = then
        self.length = length
        self.usage = usage
        self.trailers = list(trailers)

    def head(self):
        lines = [f"HTTP/1.1 {self.status} Scripted"] + lines_of(self.headers)
        if self.framing == "length":
            size = sum(len(part) for part in self.parts if isinstance(part, bytes))
            lines.append(f"content-length: {size if self.length is None else self.length}")
        elif self.framing == "chunked":
            lines.append("transfer-encoding: chunked")
        else:
            lines.append("connection: close")
        return "".join(line + "\r\n" for line in lines + [""]).encode("latin-1")

    def tail(self):
        """What follows the last chunk."""
        return "".join(line + "\r\n" for line in lines_of(self.trailers) + [""]).encode("latin-1")


def lines_of(fields):
    return [f"{name}: {value}" for name, value in fields]


class Silence:
    """No answer at all: the connection stays open until `gate` opens, then it is closed."""

    def __init__(self, gate):
        self.gate = gate


class Reset:
    """No answer: the connection is reset as soon as the request has been read."""


class Echo:
    """Takes the upgrade that was asked for, and says back whatever comes, until the client is gone."""

    HEAD = b"HTTP/1.1 101 Scripted\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


class Gate:
    """A door in an answer: `gate.passed` as a part waits there until the test calls `open()`."""

    def __init__(self):
        self._reached = threading.Event()
        self._open = threading.Event()

    def passed(self):
        self._reached.set()
        assert self._open.wait(DEADLINE_SECONDS), "nobody opened the gate"

    def open(self):
        self._open.set()

    def wait_until_reached(self):
        assert self._reached.wait(DEADLINE_SECONDS), "nobody came to the gate"


def usage(prompt, completion, cached=0):
    """The `usage` object as OpenAI sends it."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def completion(model, reported, text="".join(TEXT)):
    body = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
    }
    if reported is not None:
        body["usage"] = reported
    return json.dumps(body, ensure_ascii=False).encode()


def event(data):
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


DONE = event("[DONE]")


def stream(model, reported, words=TEXT):
    """The events of a streamed completion; with `reported` as include_usage has it: null on every chunk but the last."""
    def chunk(choices, **rest):
        return event(dict({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000,
                           "model": model, "choices": choices}, **rest))

    none_yet = {} if reported is None else {"usage": None}
    events = [chunk([{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}], **none_yet)
              for word in words]
    events.append(chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], **none_yet))
    if reported is not None:
        events.append(chunk([], usage=reported))
    return events + [DONE]


def json_answer(model, reported, before=None, **how):
    """A completion; `before` (a gate's `passed`, say) is called between its head and its body."""
    parts = ([before] if before else []) + [completion(model, reported)]
    return Answer(parts, headers=[("content-type", "application/json")], usage=reported, **how)


def sse_answer(model, reported, words=TEXT, **how):
    return Answer(stream(model, reported, words), headers=[("content-type", "text/event-stream")],
                  framing="chunked", usage=reported, **how)


def honest(request, reported):
    """What OpenAI would answer: a stream reports usage only if it was asked to, and what it cannot read is a 400."""
    try:
        body = request.json()
    except (ValueError, RecursionError):
        return error(400, "unreadable")
    if not body.get("stream"):
        return json_answer(body.get("model"), reported)
    asked = (body.get("stream_options") or {}).get("include_usage") is True
    return sse_answer(body.get("model"), reported if asked else None)


def error(status, code="boom", **how):
    text = json.dumps({"error": {"message": code, "type": "server_error", "param": None, "code": code}}).encode()
    return Answer(text, status=status, headers=[("content-type", "application/json")], **how)
