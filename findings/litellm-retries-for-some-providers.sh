#!/usr/bin/env bash
# Does LiteLLM as a client ask again after a provider's 429 that says "in one second"?
#
# Guessed before it was run: one library, one policy. `litellm.completion` at its defaults asks again for every provider alike, or for
# none; with `num_retries=2` it does for all.
#
# Seen: by whose code makes the call. For OpenAI and Azure that is OpenAI's SDK, which asks again by itself; for Anthropic and Gemini it is
# LiteLLM's own client, which raises RateLimitError after one request. `num_retries` needs the package tenacity, which LiteLLM does not
# install: without it the call fails with a plain Exception in the place of RateLimitError, and with it all are served. So an application
# on LiteLLM whose provider is out of quota is served by a lower tier in the same call with OpenAI's wire, or with both of these.
#
# Fails if that changes. Needs Python 3.10 or later with venv, and the package registry; everything else stays on 127.0.0.1. Takes
# about half a minute besides the installation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet litellm==1.110.2

cat > try.py <<'PY'
"""One call for each provider; its first request is answered 429, the next ones 200."""
import collections, http.server, json, os, sys, threading

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

litellm.suppress_debug_info = True
COUNTS = collections.Counter()
OPENAI = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
          "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}]}
ANTHROPIC = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
             "content": [{"type": "text", "text": "hi"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
GEMINI = {"candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}]}, "finishReason": "STOP", "index": 0}],
          "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}}
ANSWERS = {"openai": OPENAI, "azure": OPENAI, "anthropic": ANTHROPIC, "gemini": GEMINI}
MODELS = {"openai": "openai/gpt-4o", "azure": "azure/gpt-4o", "anthropic": "anthropic/claude-sonnet-4-6", "gemini": "gemini/gemini-2.5-pro"}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        _, run, provider = self.path.split("/")[:3]
        COUNTS[run, provider] += 1
        if COUNTS[run, provider] == 1:
            error = {"type": "rate_limit_error", "code": 429, "status": "RESOURCE_EXHAUSTED", "message": "later"}
            self.answer(429, {"type": "error", "error": error}, {"retry-after": "1"})
        else:
            self.answer(200, ANSWERS[provider])

    def answer(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def call(run, provider, **more):
    base = f"http://127.0.0.1:{server.server_port}/{run}/{provider}"
    more.update({"api_version": "2024-10-21"} if provider == "azure" else {})
    try:
        litellm.completion(model=MODELS[provider], api_base=base, api_key="k", max_tokens=9,
                           messages=[{"role": "user", "content": "Hello"}], **more)
        return COUNTS[run, provider], "served"
    except Exception as error:
        return COUNTS[run, provider], type(error).__name__


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
SERVED, REFUSED, BROKEN = (2, "served"), (1, "RateLimitError"), (1, "Exception")
options, (openai, own) = {"defaults": ({}, (SERVED, REFUSED)), "num_retries": ({"num_retries": 2}, (SERVED, BROKEN)),
                          "tenacity": ({"num_retries": 2}, (SERVED, SERVED))}[sys.argv[1]]
recorded = {"openai": openai, "azure": openai, "anthropic": own, "gemini": own}
seen = {provider: call(sys.argv[1], provider, **options) for provider in ANSWERS}
for provider, (requests, outcome) in seen.items():
    print(f"{sys.argv[1]:12} {provider:10} guessed {SERVED}, seen {(requests, outcome)}")
sys.exit(seen != recorded)
PY
venv/bin/pip list 2> /dev/null | grep -E '^(litellm|openai) '
venv/bin/python try.py defaults
venv/bin/python try.py num_retries
venv/bin/pip install --quiet tenacity==9.1.4
venv/bin/python try.py tenacity
echo 'as recorded'
