"""A stand-in LLM: enough of OpenAI's chat completions API to try bursar without a key.

    python envoy/standin.py --port 10001

POST /v1/chat/completions (JSON, or SSE with `stream: true`) and GET /v1/models. Its usage is honest and the same
every time: a prompt costs a quarter of its bytes, rounded up, plus 4 a message; an answer is one word a token, as
long as the request allows and never longer than 200. Standard library only; it binds to 127.0.0.1.
"""

import argparse
import asyncio
import json
import time

MODELS = ("gpt-4o", "gpt-4.1-mini", "gpt-4o-mini")
LONGEST_ANSWER = 200
WORDS_PER_DELTA = 16
MAX_BODY = 64 * 1024 * 1024
WORDS = "a budget is a promise that somebody made and a bursar is the one who keeps it".split()
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}


class Refused(Exception):
    """An error answer. `close`: the rest of the connection cannot be trusted or read."""

    def __init__(self, status, message, code=None, close=False):
        super().__init__(message)
        self.status, self.code, self.close = status, code, close

    def body(self):
        return {"error": {"message": str(self), "type": "invalid_request_error", "param": None, "code": self.code}}


# --- HTTP/1.1 ----------------------------------------------------------------


async def read_head(reader):
    """Request line and headers (names in lower case), or None where the client has gone."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    request_line, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = request_line.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1":
        raise Refused(400, "this stand-in speaks HTTP/1.1 only", close=True)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return parts[0], parts[1].partition("?")[0], headers


async def read_body(reader, writer, headers):
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    length = headers.get("content-length")
    if chunked and length is not None:
        raise Refused(400, "both content-length and transfer-encoding", close=True)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if chunked:
        return await read_chunks(reader)
    if length is None:
        return b""
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "content-length is not a number", close=True)
    if int(length) > MAX_BODY:
        raise Refused(413, "body too large", close=True)
    return await reader.readexactly(int(length))


async def read_chunks(reader):
    body = bytearray()
    while True:
        size_line = await reader.readuntil(b"\r\n")
        try:
            size = int(size_line.split(b";")[0], 16)
        except ValueError:
            raise Refused(400, "bad chunk size", close=True) from None
        if size < 0 or len(body) + size > MAX_BODY:
            raise Refused(413, "body too large", close=True)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
            return bytes(body)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise Refused(400, "chunk does not end where it said", close=True)


def write_json(writer, status, value, close=False):
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    writer.write((head + ("connection: close\r\n" if close else "") + "\r\n").encode() + body)


async def write_events(writer, events):
    """Server-sent events, one HTTP chunk each, so that a reader sees them come one by one."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                 b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n")
    for event in events:
        data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


# --- chat completions --------------------------------------------------------


def parse_request(body):
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(request, dict):
        raise Refused(400, "The body must be a JSON object.")
    if not isinstance(request.get("model"), str):
        raise Refused(400, "you must provide a model parameter")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        raise Refused(400, "Missing required parameter: 'messages'.", "missing_required_parameter")
    for key in ("max_tokens", "max_completion_tokens", "n"):
        value = request.get(key)
        if value is not None and (type(value) is not int or value < 1):
            raise Refused(400, f"Invalid '{key}': expected an integer of at least 1.", "invalid_type")
    return request


def message_text(message):
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def usage_of(request, answer_tokens):
    sizes = [len(message_text(m).encode("utf-8", "surrogatepass")) for m in request["messages"]]
    prompt = sum((size + 3) // 4 + 4 for size in sizes)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer_tokens,
        "total_tokens": prompt + answer_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


class Answer:
    number = 0

    def __init__(self, request):
        Answer.number += 1
        allowed = request.get("max_tokens") or request.get("max_completion_tokens")
        length = min(allowed or LONGEST_ANSWER, LONGEST_ANSWER)
        self.words = [WORDS[i % len(WORDS)] for i in range(length)]
        self.finish_reason = "length" if allowed == length else "stop"
        self.choices = range(request.get("n") or 1)
        self.usage = usage_of(request, length * len(self.choices))
        self.common = {"id": f"chatcmpl-standin-{Answer.number}", "created": int(time.time()), "model": request["model"]}

    def whole(self):
        message = {"role": "assistant", "content": " ".join(self.words), "refusal": None}
        choices = [{"index": i, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
                   for i in self.choices]
        return {**self.common, "object": "chat.completion", "choices": choices, "usage": self.usage}

    def events(self, include_usage):
        """As the real API: `usage` is null on every chunk but an extra last one, and absent if not asked for."""
        common = {**self.common, "object": "chat.completion.chunk"}
        no_usage = {"usage": None} if include_usage else {}
        for index in self.choices:
            for delta, finish_reason in self.deltas():
                choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
                yield {**common, "choices": [choice], **no_usage}
        if include_usage:
            yield {**common, "choices": [], "usage": self.usage}
        yield "[DONE]"

    def deltas(self):
        yield {"role": "assistant", "content": ""}, None
        for at in range(0, len(self.words), WORDS_PER_DELTA):
            words = " ".join(self.words[at:at + WORDS_PER_DELTA])
            yield {"content": words if at == 0 else " " + words}, None
        yield {}, self.finish_reason


def model_list():
    return {"object": "list", "data": [{"id": m, "object": "model", "created": 0, "owned_by": "standin"} for m in MODELS]}


# --- the server --------------------------------------------------------------


async def answer(writer, method, path, body):
    if (method, path) == ("GET", "/v1/models"):
        write_json(writer, 200, model_list())
    elif (method, path) == ("POST", "/v1/chat/completions"):
        request = parse_request(body)
        if request.get("stream"):
            options = request.get("stream_options")
            include_usage = isinstance(options, dict) and options.get("include_usage") is True
            await write_events(writer, Answer(request).events(include_usage))
        else:
            write_json(writer, 200, Answer(request).whole())
    else:
        raise Refused(404, f"Invalid URL ({method} {path})")


async def serve_one(reader, writer):
    """One request and its answer; False where the connection ends."""
    try:
        head = await read_head(reader)
        if head is None:
            return False
        method, path, headers = head
        body = await read_body(reader, writer, headers)
        await answer(writer, method, path, body)
        keep = headers.get("connection", "").lower() != "close"
    except Refused as refused:
        write_json(writer, refused.status, refused.body(), refused.close)
        keep = not refused.close
    await writer.drain()
    return keep


async def connection(reader, writer):
    try:
        while await serve_one(reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client has gone, or sends no HTTP
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description="stand-in LLM on 127.0.0.1")
    parser.add_argument("--port", type=int, default=10001)
    port = parser.parse_args().port
    server = await asyncio.start_server(connection, "127.0.0.1", port)
    print(f"stand-in LLM on http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
