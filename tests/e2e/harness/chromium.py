"""A real headless Chromium, spoken to by its DevTools protocol."""

import base64
import contextlib
import itertools
import json
import os
import re
import subprocess
import tempfile

from websockets.sync.client import connect

from harness.envoy import ROOT

PROGRAM = ROOT / "target/tools/chromium/headless"


def is_there():
    """Whether one can be started here."""
    return os.access(PROGRAM, os.X_OK) and subprocess.run([PROGRAM, "--version"], capture_output=True).returncode == 0


class Browser:
    """One page in a browser of its own."""

    def __init__(self):
        self._left_open = contextlib.ExitStack()
        self._folder = tempfile.TemporaryDirectory(prefix="bursar-chromium-")
        words = ["--headless", "--remote-debugging-port=0", f"--user-data-dir={self._folder.name}", "--disable-gpu", "--disable-dev-shm-usage",
                 "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-component-update",
                 # It reads our own page alone, and root, or a container, cannot have a sandbox.
                 "--no-sandbox", "about:blank"]
        self._process = subprocess.Popen([PROGRAM, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        said = []
        for line in self._process.stderr:
            said.append(line)
            if found := re.search(r"DevTools listening on (ws://\S+)", line):
                break
        else:
            raise RuntimeError("".join(said))
        self._socket = self._left_open.enter_context(connect(found.group(1), max_size=None))
        self._ids = itertools.count(1)
        self.events = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._left_open.close()
        self._process.terminate()
        self._process.wait()
        self._process.stderr.close()
        self._folder.cleanup()

    def open(self, url, width=1100, height=700):
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.events.clear()
        self._call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._receive()

    def allow_scripts(self, are_allowed):
        self._call("Emulation.setScriptExecutionDisabled", value=not are_allowed)

    def prefer(self, scheme):
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script):
        """The value of an expression in the page; asked again if another page takes this one's place meanwhile."""
        while (told := self._evaluate(script)) is None:
            pass
        return told["result"].get("value")

    def leave(self, script):
        """Runs what leads to another page, which may come before the answer."""
        self._evaluate(script)

    def _evaluate(self, script):
        answer = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if answer.get("error", {}).get("message") == "Inspected target navigated or closed":
            return None
        assert "error" not in answer, answer
        assert "exceptionDetails" not in answer["result"], answer
        return answer["result"]

    def complaints(self):
        """What the page did wrong, in the browser's words."""
        return [event for event in self.events if event["method"] == "Runtime.exceptionThrown"
                or event["method"] == "Log.entryAdded" and "favicon" not in event["params"]["entry"].get("url", "")]

    def picture(self):
        """The page as a PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def _call(self, method, **params):
        answer = self._ask(method, **params)
        assert "error" not in answer, answer
        return answer["result"]

    def _ask(self, method, **params):
        call = {"id": next(self._ids), "method": method, "params": params}
        if session := getattr(self, "_session", None):
            call["sessionId"] = session
        self._socket.send(json.dumps(call))
        while (answer := self._receive()).get("id") != call["id"]:
            pass
        return answer

    def _receive(self):
        message = json.loads(self._socket.recv(timeout=60))
        if "method" in message:
            self.events.append(message)
        return message
