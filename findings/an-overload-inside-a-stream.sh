#!/usr/bin/env bash
# What do SDKs make of a provider that is overloaded, and says so in the first event of a stream whose status is 200?
#
# Guessed before it was run: the same as of one that says it by its status: the error's own class (Anthropic's OverloadedError, a rate
# limit's), raised after the SDK asked again twice, since no output has come yet.
#
# Seen: an error in a stream is another thing. Nobody asks again but Vercel's `ai`, which does so for every such error. In Python
# Anthropic's is a plain APIStatusError whose status is 200, and in Node an APIError without any; only its text says overloaded_error.
# OpenAI's is a plain APIError without a status. Code that catches OverloadedError, RateLimitError or a status of 429 or 529 does not see
# it. Google's SDKs alone raise what they would have raised for the status, from the code in the event. So bursar takes such an event for
# a refusal of the upstream, as it does 429 and 529, and the next request goes to another tier; but it leaves no status to change, and
# the application has to ask again by itself.
#
# Fails if that changes. Needs Python 3.10 or later with venv, Node 20 or later with npm, and the package registries; everything else stays
# on 127.0.0.1. Takes a minute, most of it the installation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet openai==3.57.0 anthropic==2.14.0 google-genai==3.6.1
npm install --silent --no-audit --no-fund openai@6.49.0 @anthropic-ai/sdk@1.14.0 @google/genai@2.32.0 ai@6.0.326 @ai-sdk/openai@3.0.141 zod@4.6.7

cat > try.py <<'PY'
import collections, http.server, json, subprocess, sys, threading

import anthropic
import openai
from google import genai

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
LIMITED = {"error": {"message": "later", "type": "rate_limit_exceeded", "code": "rate_limit_exceeded"}}
EXHAUSTED = {"error": {"code": 429, "message": "later", "status": "RESOURCE_EXHAUSTED"}}
ERRORS = {"anthropic": OVERLOADED, "gemini": EXHAUSTED}
COUNTS = collections.Counter()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        run, provider = self.path.split("/")[1:3]
        COUNTS[run, provider] += 1
        error = json.dumps(ERRORS.get(provider, LIMITED))
        if run == "status":
            return self.answer(529, "application/json", error)
        event = "event: error\n" if provider == "anthropic" else ""
        self.answer(200, "text/event-stream", f"{event}data: {error}\n\n")

    def answer(self, status, kind, text):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def by_anthropic(url):
    client = anthropic.Anthropic(api_key="k", base_url=url)
    list(client.messages.create(model="m", max_tokens=5, stream=True, messages=[{"role": "user", "content": "hi"}]))


def by_openai(url):
    client = openai.OpenAI(api_key="k", base_url=url)
    list(client.chat.completions.create(model="m", stream=True, messages=[{"role": "user", "content": "hi"}]))


def by_google(url):
    client = genai.Client(api_key="k", http_options={"base_url": url})
    list(client.models.generate_content_stream(model="gemini-2.5-pro", contents="hi"))


def python(call, url):
    try:
        call(url)
        return ["nothing", None]
    except Exception as error:
        status = getattr(error, "status_code", getattr(error, "code", None))
        return [type(error).__name__, status if isinstance(status, int) else None]


def node(client, url):
    return json.loads(subprocess.run(["node", "try.mjs", client, url], capture_output=True, text=True, check=True).stdout)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
CALLS = {"anthropic": by_anthropic, "openai": by_openai, "gemini": by_google}
RECORDED = {
    ("status", "python", "anthropic"): (3, "OverloadedError", 529), ("stream", "python", "anthropic"): (1, "APIStatusError", 200),
    ("stream", "python", "openai"): (1, "APIError", None), ("stream", "python", "gemini"): (1, "ClientError", 429),
    ("status", "node", "anthropic"): (3, "OverloadedError", 529), ("stream", "node", "anthropic"): (1, "APIError", None),
    ("stream", "node", "openai"): (1, "APIError", None), ("stream", "node", "gemini"): (1, "ApiError", 429),
    ("stream", "node", "ai"): (3, "AI_NoOutputGeneratedError", None)}
seen = {}
for run, language, provider in RECORDED:
    COUNTS.clear()
    url = f"http://127.0.0.1:{server.server_port}/{run}/{provider}"
    raised, status = python(CALLS[provider], url) if language == "python" else node(provider, url)
    seen[run, language, provider] = COUNTS[run, provider], raised, status
    print(f"by {run:7} {language:7} {provider:10} requests: {COUNTS[run, provider]}, raised: {raised}, its status: {status}", flush=True)
sys.exit(seen != RECORDED)
PY

cat > try.mjs <<'JS'
import Anthropic from '@anthropic-ai/sdk'
import OpenAI from 'openai'
import { GoogleGenAI } from '@google/genai'
import { streamText } from 'ai'
import { createOpenAI } from '@ai-sdk/openai'

const [client, baseURL] = process.argv.slice(2)
const messages = [{ role: 'user', content: 'hi' }]
const calls = {
  anthropic: () => new Anthropic({ apiKey: 'k', baseURL }).messages.create({ model: 'm', max_tokens: 5, stream: true, messages }),
  openai: () => new OpenAI({ apiKey: 'k', baseURL }).chat.completions.create({ model: 'm', stream: true, messages }),
  gemini: () => new GoogleGenAI({ apiKey: 'k', httpOptions: { baseUrl: baseURL } })
    .models.generateContentStream({ model: 'gemini-2.5-pro', contents: 'hi' }),
}
try {
  if (client === 'ai') {
    const told = streamText({ model: createOpenAI({ baseURL, apiKey: 'k' }).chat('m'), messages, onError() {} })
    await told.text
  } else {
    for await (const _ of await calls[client]());
  }
  console.log(JSON.stringify(['nothing', null]))
} catch (error) {
  const name = error.name === 'Error' ? error.constructor.name : error.name
  console.log(JSON.stringify([name, error.status ?? error.statusCode ?? null]))
}
JS
venv/bin/pip list 2> /dev/null | grep -E '^(openai|anthropic|google-genai) '
npm ls --depth 0 | tail -n +2
venv/bin/python -W ignore try.py
echo 'as recorded'
