"""An honest LLM: it reports exactly the tokens that the trace has, and never answers longer than it may.

A process of its own. It tells its port on stdout and ends when its stdin does. Of a model that is named on its command line
(`model=4`) it answers so many requests at a time, the others wait in line. What a request shall cost
comes in its header `x-replay: prompt tokens,output tokens,seconds`; `x-test-id` names it in the tally.

    GET /tally       {id: [[model, prompt tokens, completion tokens, seconds that the answer took here], ...]}
    GET /waiting     how many requests stand at the gate
    GET /gate/shut   answers wait from now on
    GET /gate/open   ... until now
"""

import asyncio
import contextlib
import json
import sys
import time
from collections import defaultdict

import wire

CHAT = "/v1/chat/completions"
PIECES = 4   # content events of a streamed answer
TEXT = "a budget is a promise that somebody made and a bursar keeps it " * 1024
END = wire.chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Upstream:
    def __init__(self, places):
        self.places = {model: asyncio.Semaphore(count) for model, count in places.items()}
        self.tally = defaultdict(list)
        self.waiting = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, reader, writer):
        try:
            while True:
                line, headers, body = await wire.read_message(reader)
                path = line.split(" ")[1]
                if path == CHAT:
                    await self.chat(writer, headers, json.loads(body))
                else:
                    send_json(writer, self.control(path))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass   # the peer has gone
        finally:
            writer.close()

    def control(self, path):
        if path == "/gate/shut":
            self.gate.clear()
        elif path == "/gate/open":
            self.gate.set()
        return self.tally if path == "/tally" else {"waiting": self.waiting}

    async def chat(self, writer, headers, ask):
        received = time.monotonic()
        prompt, output, seconds = headers["x-replay"].split(",")
        completion = min(int(output), ask.get("max_tokens", int(output)))
        usage = {"prompt_tokens": int(prompt), "completion_tokens": completion,
                 "total_tokens": int(prompt) + completion}
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        answer = stream if ask.get("stream") else whole
        async with self.places.get(ask["model"], contextlib.nullcontext()):
            last = await answer(writer, ask, usage, float(seconds))
        # Counted before it is out, so that who has the answer finds it in the tally.
        self.tally[headers["x-test-id"]].append(
            [ask["model"], int(prompt), completion, time.monotonic() - received])
        writer.write(last)


async def whole(writer, ask, usage, seconds):
    """Takes its time; what is left to be written."""
    await asyncio.sleep(seconds)
    message = {"role": "assistant", "content": TEXT[:4 * usage["completion_tokens"]]}
    return json_answer({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": ask["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage})


async def stream(writer, ask, usage, seconds):
    """Writes all events but the last; what is left to be written."""
    writer.write(wire.head("HTTP/1.1 200 OK", [("content-type", "text/event-stream"), ("transfer-encoding", "chunked")]))
    size = 4 * usage["completion_tokens"] // PIECES
    for piece in range(PIECES):
        delta = {"content": TEXT[piece * size:(piece + 1) * size]}
        writer.write(event(ask, [{"index": 0, "delta": delta, "finish_reason": None}]))
        await asyncio.sleep(seconds / PIECES)
    writer.write(event(ask, [{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    asked = (ask.get("stream_options") or {}).get("include_usage")
    return (event(ask, [], usage) if asked else b"") + END


def event(ask, choices, usage=None):
    data = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": ask["model"],
            "choices": choices, "usage": usage}
    return wire.chunk(b"data: " + json.dumps(data).encode() + b"\n\n")


def json_answer(value):
    body = json.dumps(value).encode()
    headers = [("content-type", "application/json"), ("content-length", len(body))]
    return wire.head("HTTP/1.1 200 OK", headers) + body


def send_json(writer, value):
    writer.write(json_answer(value))


async def main(upstream):
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    words = (word.rsplit("=", 1) for word in sys.argv[1:])
    asyncio.run(main(Upstream({model: int(count) for model, count in words})))
