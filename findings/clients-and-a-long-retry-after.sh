#!/usr/bin/env bash
# What do SDKs at their defaults do with a 429 whose Retry-After is an hour?
#
# Guessed before it was run: a wait that long is not slept through inside a call. Every SDK raises its error at once, after one request,
# and leaves the wait to the application; the ones with retries make a few of them within seconds at the most.
#
# Seen: no two agree, and three do what nobody wants of a spent budget. Anthropic's SDKs sleep the whole hour within the call.
# OpenAI's SDK for Node takes no notice of the header and asks twice more within seconds, and so does Vercel's `ai`. boto3 asks again
# since Bedrock's operations have no error of their own for this code. Only `x-should-retry: false` stops Anthropic's and OpenAI's;
# nothing in the answer stops the other two. So bursar sends `x-should-retry: false` with every wait above a minute, and answers
# Bedrock's callers with the status 400.
#
# Fails if a client comes to do something else. Needs Python 3.10 or later with venv, Node 20 or later with npm, and the package
# registries; everything else stays on 127.0.0.1. Takes about a minute besides the installation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet openai==3.57.0 anthropic==2.14.0 boto3==1.44.8
npm install --silent --no-audit --no-fund openai@7.59.0 @anthropic-ai/sdk@1.14.0 ai@7.0.173 @ai-sdk/openai@4.0.118 zod@4

cat > server.py <<'PY'
"""Answers every request with 429; counts requests by the first part of the path. GET /count/NAME tells how many."""
import collections, http.server, json, sys

COUNTS = collections.Counter()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {"count": COUNTS[self.path.rsplit("/", 1)[1]]})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        name = self.path.split("/")[1]
        COUNTS[name] += 1
        headers = {"retry-after": "3600"}
        if name.endswith("-told"):
            headers["x-should-retry"] = "false"
        if name.startswith("boto3"):
            headers["x-amzn-errortype"] = "TooManyRequestsException"
        error = {"type": "rate_limit_error", "code": "insufficient_quota", "message": "spent"}
        self.answer(429, {"type": "error", "message": "spent", "error": error}, headers)

    def answer(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
PY

cat > client.py <<'PY'
"""client.py WHICH BASE: one call at the SDK's defaults, which ends with the SDK's own error."""
import sys

which, base = sys.argv[1:]
messages = [{"role": "user", "content": "Hello"}]
try:
    if which.startswith("openai"):
        import openai
        openai.OpenAI(base_url=f"{base}/v1", api_key="k").chat.completions.create(model="m", messages=messages)
    elif which.startswith("anthropic"):
        import anthropic
        anthropic.Anthropic(base_url=base, api_key="k").messages.create(model="m", max_tokens=9, messages=messages)
    else:
        import boto3
        client = boto3.client("bedrock-runtime", endpoint_url=base, region_name="us-east-1", aws_access_key_id="a",
                              aws_secret_access_key="b")
        client.converse(modelId="m", messages=[{"role": "user", "content": [{"text": "Hello"}]}])
except Exception as error:
    print(type(error).__name__)
PY

cat > client.mjs <<'JS'
// client.mjs WHICH BASE: as client.py.
const [which, base] = process.argv.slice(2);
const messages = [{role: "user", content: "Hello"}];
try {
  if (which.startsWith("openai")) {
    const {default: OpenAI} = await import("openai");
    await new OpenAI({baseURL: `${base}/v1`, apiKey: "k"}).chat.completions.create({model: "m", messages});
  } else if (which.startsWith("anthropic")) {
    const {default: Anthropic} = await import("@anthropic-ai/sdk");
    await new Anthropic({baseURL: base, apiKey: "k"}).messages.create({model: "m", max_tokens: 9, messages});
  } else {
    const {generateText} = await import("ai");
    const {createOpenAI} = await import("@ai-sdk/openai");
    await generateText({model: createOpenAI({baseURL: `${base}/v1`, apiKey: "k"}).chat("m"), messages});
  }
} catch (error) {
  console.log(error.constructor.name);
}
JS

cat > run.py <<'PY'
import json, subprocess, sys, time, urllib.request

PYTHON, NODE = ["venv/bin/python", "client.py"], ["node", "client.mjs"]
PATIENCE_SECONDS = 25   # who has not come back by then sleeps
# client, how it is run, without x-should-retry and with it: requests, and whether the call came back
EXPECTED = [
    ("openai-python 3.57.0", PYTHON, "openai-python", (1, True), (1, True)),
    ("openai-node 7.59.0", NODE, "openai-node", (3, True), (1, True)),
    ("anthropic-python 2.14.0", PYTHON, "anthropic-python", (1, False), (1, True)),
    ("anthropic-node 1.14.0", NODE, "anthropic-node", (1, False), (1, True)),
    ("vercel ai 7.0.173", NODE, "ai", (3, True), (3, True)),
    ("boto3 1.44.8", PYTHON, "boto3", (3, True), (3, True)),
]
server = subprocess.Popen([sys.executable, "server.py"], stdout=subprocess.PIPE, text=True)
faults = 0
try:
    base = f"http://127.0.0.1:{server.stdout.readline().strip()}"
    for title, command, name, *expected in EXPECTED:
        for told, wanted in zip(("", "-told"), expected):
            client = subprocess.Popen([*command, name + told, f"{base}/{name}{told}"], stdout=subprocess.PIPE, text=True)
            try:
                client.wait(PATIENCE_SECONDS)
                came_back = True
            except subprocess.TimeoutExpired:
                client.kill()
                came_back = False
            with urllib.request.urlopen(f"{base}/count/{name}{told}") as answer:
                seen = (json.load(answer)["count"], came_back)
            end = client.stdout.read().strip() if came_back else f"sleeps (not back after {PATIENCE_SECONDS} s)"
            verdict = "as recorded" if seen == wanted else f"CHANGED, was {wanted}"
            faults += seen != wanted
            print(f"{title:24} {'x-should-retry: false' if told else 'retry-after: 3600 only':24} requests {seen[0]}  {end:36} {verdict}", flush=True)
finally:
    server.kill()
sys.exit(1 if faults else 0)
PY
venv/bin/python run.py
