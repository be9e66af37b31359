"""The scripted upstream: an HTTP/1.1 server on raw sockets that records what really came over the wire."""

import socket
import struct
import threading
from collections import Counter, defaultdict

from . import answers
from .message import Message, fields
from .wait import until

TEST_ID = "x-test-id"
TEST_USAGE = "x-test-usage"   # "prompt,completion[,cached]": what the honest answer reports
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Request(Message):
    """One request as it came: the line, the headers in their order, the body's bytes."""

    def __init__(self, connection, line, headers):
        self.connection = connection
        self.line = line
        self.method, self.target, self.version = (line.split(" ") + ["", ""])[:3]
        super().__init__(headers)
        self.surplus = b""   # bytes that stood on the connection beyond this request, before it was answered

    def __repr__(self):
        return f"<{self.line} {dict(self.headers)} {self.body[:200]!r}>"

    def unpadded(self):
        """The body, without the white space that keeps the length of a long one true that passes."""
        text = self.body.rstrip(b" ")
        assert text == self.body or self.all("content-length") and len(self.body) - len(text) < 200
        return text


class Ended(Exception):
    """The peer closed the connection."""


class Reader:
    """Reads HTTP/1.1 requests off a socket, keeping what came too much."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def fill(self):
        try:
            data = self.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            raise Ended
        self.buffer += data

    def upto(self, mark):
        while mark not in self.buffer:
            self.fill()
        taken, self.buffer = self.buffer.split(mark, 1)
        return taken

    def exactly(self, size):
        pieces, got = [self.buffer[:size]], min(size, len(self.buffer))
        self.buffer = self.buffer[size:]
        while got < size:
            self.fill()
            pieces.append(self.buffer[:size - got])
            self.buffer = self.buffer[len(pieces[-1]):]
            got += len(pieces[-1])
        return b"".join(pieces)

    def whatever_comes(self):
        if not self.buffer:
            self.fill()
        taken, self.buffer = self.buffer, b""
        return taken

    def chunked(self):
        """The body and the trailers."""
        body = []
        while True:
            size = int(self.upto(b"\r\n").split(b";")[0], 16)
            if size == 0:
                trailers = iter(lambda: self.upto(b"\r\n").decode("latin-1"), "")
                return b"".join(body), fields(trailers)
            body.append(self.exactly(size))
            self.upto(b"\r\n")

    def left_over(self):
        """What already lies on the connection beyond the request that was read, without waiting for it."""
        try:
            self.sock.setblocking(False)
            self.buffer += self.sock.recv(1 << 16)
        except OSError:
            pass
        finally:
            self.sock.setblocking(True)
        return self.buffer


class Upstream:
    """Answers by `scripts[test id]` if there is one, by `routes[path]`, else as an honest OpenAI would.

    `early` answers do not wait for the request's body, and end the connection.
    A script is an answer, or a list of answers used up one by one, the last one staying.
    `reported` tallies the usage that was told, by kind.
    """

    def __init__(self):
        self.begun = []       # every request whose headers came
        self.requests = []    # every request that came whole
        self.malformed = []   # what did not parse as a request
        self.scripts = {}
        self.early = {}       # by test id: answers that are sent before the request's body is read
        self.routes = {}
        self.reported = Counter()
        self.read_by_envoy = None   # callable: bytes that Envoy has read from us; set by the Envoy wrapper
        self._taken = defaultdict(int)
        self._lock = threading.Lock()
        self._sockets = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    # --- what tests ask ---

    def of(self, test_id):
        """The whole requests of one test id, in order of arrival."""
        with self._lock:
            return [request for request in self.requests if request.header(TEST_ID) == test_id]

    def begun_of(self, test_id):
        with self._lock:
            return [request for request in self.begun if request.header(TEST_ID) == test_id]

    def forget(self, test_id):
        """Drops the requests of one test id, for tests that send more than should be kept."""
        with self._lock:
            self.requests = [request for request in self.requests if request.header(TEST_ID) != test_id]
            self.begun = [request for request in self.begun if request.header(TEST_ID) != test_id]

    def stop(self):
        self._listener.close()
        with self._lock:
            open_sockets = list(self._sockets)
        for sock in open_sockets:
            sock.close()

    # --- serving ---

    def _accept(self):
        number = 0
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets.add(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock, number):
        reader = Reader(sock)
        try:
            while self._answer(sock, reader, self._read(reader, number)):
                pass
        except (Ended, OSError):
            pass
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _read(self, reader, number):
        line, *lines = reader.upto(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = fields(lines)
        request = Request(number, line, headers)
        with self._lock:
            self.begun.append(request)
            if not request.version.startswith("HTTP/1.") or any(len(header) != 2 for header in headers):
                self.malformed.append(line)
        if request.header(TEST_ID) in self.early:
            self._send(reader.sock, self.early[request.header(TEST_ID)])
            raise Ended
        if (request.header("transfer-encoding") or "").lower() == "chunked":
            request.body, request.trailers = reader.chunked()
        else:
            request.body = reader.exactly(int(request.header("content-length") or 0))
        request.surplus = reader.left_over()
        with self._lock:
            self.requests.append(request)
        return request

    def _answer(self, sock, reader, request):
        """Sends the scripted answer; True if the connection goes on."""
        answer = self._script(request)
        if isinstance(answer, answers.Reset):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            return False
        if isinstance(answer, answers.Silence):
            answer.gate.passed()
            return False
        if isinstance(answer, answers.Echo):
            sock.sendall(answer.HEAD)
            while True:   # until `Ended`
                sock.sendall(reader.whatever_comes())
        self._tally(answer.usage)
        self._send(sock, answer)
        if answer.then == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        return answer.then == "keep" and answer.framing != "close"

    def _script(self, request):
        script = self.scripts.get(request.header(TEST_ID))
        if isinstance(script, list):
            with self._lock:
                index = self._taken[request.header(TEST_ID)]
                self._taken[request.header(TEST_ID)] += 1
            script = script[min(index, len(script) - 1)]
        if script is None:
            script = self.routes.get(request.target.split("?")[0])
        if script is None and request.target.split("?")[0].endswith("/chat/completions") and request.method == "POST":
            numbers = [int(n) for n in (request.header(TEST_USAGE) or "10,5").split(",")]
            script = answers.honest(request, answers.usage(*numbers))
        return script or answers.Answer(b"plain", headers=[("content-type", "text/plain")])

    def _tally(self, usage):
        if not usage:
            return
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        with self._lock:
            self.reported["prompt"] += usage["prompt_tokens"]
            self.reported["cached"] += cached
            self.reported["completion"] += usage["completion_tokens"]

    def _send(self, sock, answer):
        self._put(sock, answer.head(), answer.edges)
        for part in answer.parts:
            if callable(part):
                part()
            elif answer.framing == "chunked":
                self._put(sock, b"%x\r\n%s\r\n" % (len(part), part), answer.edges)
            else:
                self._put(sock, part, answer.edges)
        if answer.framing == "chunked" and answer.then == "keep":
            self._put(sock, b"0\r\n" + answer.tail(), answer.edges)

    def _put(self, sock, data, edge):
        """With `edge`, returns only when Envoy has read `data`. Envoy reads a socket until it is empty and counts
        after that, so what is sent next is a read of its own."""
        before = self.read_by_envoy() if edge else 0
        sock.sendall(data)
        if edge:
            until(lambda: self.read_by_envoy() >= before + len(data), "Envoy to read what the upstream sent")
