#!/usr/bin/env bash
# Does a framework ask for a stream's usage (`stream_options.include_usage`) behind a proxy as it does without one?
#
# Guessed before it was run: a framework asks always, or never. The address of the server has nothing to do with it, since a proxy in front
# of OpenAI speaks the same protocol.
#
# Seen: LangChain and OpenAI's own Agents SDK ask when they talk to api.openai.com, and stop as soon as they have another base URL, by
# argument or (LangChain) by OPENAI_BASE_URL. Their counts of tokens are then nothing or 0, without an error or a warning, just where
# somebody put a gateway in to count. Pydantic AI and Vercel's `@ai-sdk/openai` ask either way; `@ai-sdk/openai-compatible` never does by
# itself. So bursar asks in the client's place, and takes the chunk out again that the client did not ask for; whoever wants the
# framework to count, too, sets `stream_usage=True`, `ModelSettings(include_usage=True)` or `includeUsage: true`.
#
# Fails if that changes. Needs Python 3.10 or later with venv, Node 20 or later with npm, and the package registries; everything else stays
# on 127.0.0.1: in the place of api.openai.com the HTTP client of the SDK answers by itself. Takes a minute, most of it the installation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet openai==3.57.0 langchain-openai==1.7.4 openai-agents==0.24.0 'pydantic-ai-slim[openai]==2.68.0'
npm install --silent --no-audit --no-fund ai@6.0.326 @ai-sdk/openai@3.0.141 @ai-sdk/openai-compatible@2.0.92 zod@4.6.7

cat > try.py <<'PY'
"""One stream of each framework, at its defaults, to OpenAI itself and to another address; then Vercel's, to another address."""
import asyncio, http.server, json, os, subprocess, sys, threading
from unittest import mock

import httpx2
from agents import Agent as OpenAIAgent, OpenAIChatCompletionsModel, Runner, set_tracing_disabled
from langchain_openai import ChatOpenAI
from openai import AsyncOpenAI
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

os.environ["OPENAI_API_KEY"] = "k"
set_tracing_disabled(True)
ASKED = []


def stream(body):
    """The answer as an event stream, with usage for who asks for it."""
    asks = bool((body.get("stream_options") or {}).get("include_usage"))
    ASKED.append(asks)
    parts = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": "hi"}, "finish_reason": None}]},
             {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]
    if asks:
        parts.append({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}})
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    return ("".join(f"data: {json.dumps({**head, **part})}\n\n" for part in parts) + "data: [DONE]\n\n").encode()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        data = stream(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def in_its_place(_, request):
    """In the place of the network."""
    return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream(json.loads(request.content)))


async def in_its_place_later(_, request):
    return in_its_place(_, request)


def langchain(**where):
    used = [chunk.usage_metadata for chunk in ChatOpenAI(model="gpt-4o", **where).stream("hi") if chunk.usage_metadata]
    return used[-1]["total_tokens"] if used else None


def langchain_by_environment(base_url):
    os.environ["OPENAI_BASE_URL"] = base_url
    try:
        return langchain()
    finally:
        del os.environ["OPENAI_BASE_URL"]


def agents(**where):
    async def run():
        told = Runner.run_streamed(OpenAIAgent(name="a", model=OpenAIChatCompletionsModel("gpt-4o", AsyncOpenAI(**where))), "hi")
        async for _ in told.stream_events():
            pass
        return told.context_wrapper.usage.total_tokens
    return asyncio.run(run())


def pydantic_ai(**where):
    async def run():
        agent = Agent(OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=AsyncOpenAI(**where))))
        async with agent.run_stream("hi") as told:
            async for _ in told.stream_text():
                pass
            return told.usage.total_tokens
    return asyncio.run(run())


def vercel(which):
    done = subprocess.run(["node", "try.mjs", which, URL], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def ask(name, where, call):
    """Whether it asks for usage, and what it counts itself."""
    ASKED.clear()
    counted = call()
    [asks] = ASKED
    print(f"{name:26} {where:16} asks for usage: {asks!s:6} its own count: {counted}", flush=True)
    return asks, counted


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
URL = f"http://127.0.0.1:{server.server_port}/v1"
seen = {}
with mock.patch.object(httpx2.HTTPTransport, "handle_request", in_its_place), \
     mock.patch.object(httpx2.AsyncHTTPTransport, "handle_async_request", in_its_place_later):
    for name, call in (("LangChain", langchain), ("Agents SDK", agents), ("Pydantic AI", pydantic_ai)):
        seen[name, "OpenAI"] = ask(name, "OpenAI itself", call)
for name, where, call in (
        ("LangChain", "base_url", lambda: langchain(base_url=URL)), ("LangChain", "OPENAI_BASE_URL", lambda: langchain_by_environment(URL)),
        ("Agents SDK", "base_url", lambda: agents(base_url=URL)), ("Pydantic AI", "base_url", lambda: pydantic_ai(base_url=URL)),
        ("@ai-sdk/openai", "base_url", lambda: vercel("openai")), ("@ai-sdk/openai-compatible", "base_url", lambda: vercel("compatible"))):
    seen[name, where] = ask(name, where, call)
sys.exit(seen != {
    ("LangChain", "OpenAI"): (True, 6), ("Agents SDK", "OpenAI"): (True, 6), ("Pydantic AI", "OpenAI"): (True, 6),
    ("LangChain", "base_url"): (False, None), ("LangChain", "OPENAI_BASE_URL"): (False, None), ("Agents SDK", "base_url"): (False, 0),
    ("Pydantic AI", "base_url"): (True, 6), ("@ai-sdk/openai", "base_url"): (True, 6), ("@ai-sdk/openai-compatible", "base_url"): (False, None)})
PY

cat > try.mjs <<'JS'
import { streamText } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'

const [which, baseURL] = process.argv.slice(2)
const provider = which === 'openai' ? createOpenAI({ baseURL, apiKey: 'k' }).chat : createOpenAICompatible({ name: 'x', baseURL, apiKey: 'k' })
const told = streamText({ model: provider('gpt-4o'), prompt: 'hi' })
for await (const _ of told.textStream);
console.log(JSON.stringify((await told.usage).totalTokens ?? null))
JS
venv/bin/pip list 2> /dev/null | grep -E '^(openai|langchain-openai|openai-agents|pydantic-ai-slim) '
npm ls --depth 0 | tail -n +2
venv/bin/python -W ignore try.py
echo 'as recorded'
