#!/usr/bin/env bash
# Where does Codex offer its tools?
#
# Guessed before it was run: in `tools`, at the top of the body, as OpenAI's SDKs do and as the Responses API is described. A gateway that
# asks whether a request needs tools, counts them or filters them looks there.
#
# Seen: for its default model Codex sends no `tools` at all. They stand in the first entry of `input`, of the type `additional_tools`,
# though `tool_choice` and `parallel_tool_calls` are where they always were. So bursar takes such an entry for tools, too: a request with
# it is not lowered to a model that has none.
#
# Fails if Codex comes to do something else. Needs Node 20 or later with npm, Python 3, and the package registries; everything else stays on
# 127.0.0.1. Takes half a minute, most of it the installation.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

npm install --silent --no-audit --no-fund @openai/codex@0.171.0

cat > run.py <<'PY'
import http.server, json, os, pathlib, subprocess, threading

BODIES = []
RESPONSE = {"id": "r1", "object": "response", "status": "completed", "model": "m", "output": [],
            "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2,
                      "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}}
EVENTS = [{"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "usage": None}},
          {"type": "response.completed", "response": RESPONSE}]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        BODIES.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        data = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in EVENTS).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
home = pathlib.Path("home")
(home / ".codex").mkdir(parents=True)
(home / ".codex/config.toml").write_text(f'''
model_provider = "local"
[model_providers.local]
name = "local"
base_url = "http://127.0.0.1:{server.server_port}/v1"
env_key = "LOCAL_KEY"
wire_api = "responses"
''')
environment = {**os.environ, "HOME": str(home.resolve()), "LOCAL_KEY": "k"}
environment.pop("CODEX_HOME", None)
codex = str(pathlib.Path("node_modules/.bin/codex").resolve())
print(subprocess.run([codex, "--version"], env=environment, capture_output=True, text=True).stdout.strip())
subprocess.run([codex, "exec", "--skip-git-repo-check", "Say hello"], env=environment, cwd=home, stdin=subprocess.DEVNULL,
               capture_output=True, timeout=120)
body = BODIES[0]
first = body["input"][0]
seen = ("tools" in body, first.get("type"), len(first.get("tools", [])) > 0, body.get("tool_choice"))
print("model             ", body["model"])
print("keys of the body  ", ", ".join(sorted(body)))
print("first of the input", first.get("type"), "with", len(first.get("tools", [])), "entries in its tools")
expected = (False, "additional_tools", True, "auto")
print("as recorded" if seen == expected else f"CHANGED: {seen}, was {expected}")
raise SystemExit(seen != expected)
PY
python3 run.py
