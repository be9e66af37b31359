"""A raw HTTP/1.1 client: exact bytes out, exact bytes in."""

import json
import socket

from .message import Message, fields
from .wait import DEADLINE_SECONDS, until


class Cut(Exception):
    """The connection ended within an answer."""


class Response(Message):
    """An answer: status, headers in their order, and the body with its transfer coding undone."""

    def __init__(self, status, headers):
        self.status = status
        super().__init__(headers)
        self.id = None     # the test id of the request
        self.cut = False   # the connection ended before the answer did

    @property
    def code(self):
        return self.json()["error"]["code"]

    @property
    def told(self):
        """(tier, model, decision, reason) as the headers tell them."""
        return tuple(self.header(f"x-bursar-{name}") for name in ("tier", "model", "decision", "reason"))

    def events(self):
        """The data of each server-sent event, JSON decoded except for `[DONE]`."""
        texts = [line[len(b"data: "):] for line in self.body.split(b"\n") if line.startswith(b"data: ")]
        return [text.decode() if text == b"[DONE]" else json.loads(text) for text in texts]

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} {self.body[:300]!r}>"


def head(method, path, headers):
    """The bytes of a request's head; header values may be str or bytes."""
    lines = [f"{method} {path} HTTP/1.1".encode("latin-1")]
    for name, value in headers:
        lines.append(name.encode("latin-1") + b": " + (value if isinstance(value, bytes) else str(value).encode()))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def chunked(pieces):
    """The bytes of each chunk, then of the last one."""
    return [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece] + [b"0\r\n\r\n"]


class Connection:
    """One connection to Envoy. `read_by_envoy`, if given, makes each piece that is sent a read of its own."""

    def __init__(self, port, read_by_envoy=None, tls=None):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_SECONDS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost")
        self.read_by_envoy = read_by_envoy
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, *pieces):
        for piece in pieces:
            before = self.read_by_envoy() if self.read_by_envoy else 0
            self.sock.sendall(piece)
            if self.read_by_envoy:
                until(lambda: self.read_by_envoy() >= before + len(piece), "Envoy to read what the client sent")

    def _fill(self):
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            raise Cut(self.buffer)
        self.buffer += data

    def _upto(self, mark):
        while mark not in self.buffer:
            self._fill()
        taken, self.buffer = self.buffer.split(mark, 1)
        return taken

    def _exactly(self, response, size):
        while len(self.buffer) < size:
            try:
                self._fill()
            except Cut:
                response.body += self.buffer
                raise
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def read_head(self):
        """The next answer's status and headers."""
        line, *lines = self._upto(b"\r\n\r\n").decode("latin-1").split("\r\n")
        return Response(int(line.split(" ")[1]), fields(lines))

    def read_bytes(self, size):
        """The next bytes, whatever they are."""
        while len(self.buffer) < size:
            self._fill()
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def read_interim(self):
        """The status of an interim answer such as 100."""
        return int(self._upto(b"\r\n\r\n").split(b" ")[1])

    def read_body(self, response, method="POST", upto=None):
        """Reads the rest of the answer, or with `upto` only until these bytes have come. A cut is noted, not raised."""
        try:
            self._read_body(response, method, upto)
        except Cut:
            response.cut = True
        return response

    def _read_body(self, response, method, upto):
        if method == "HEAD" or response.status in (204, 304):
            return
        if response.header("transfer-encoding") == "chunked":
            while not (upto and upto in response.body):
                size = int(self._upto(b"\r\n"), 16)
                if size == 0:
                    response.trailers = self._trailers()
                    return
                response.body += self._exactly(response, size)
                self._exactly(response, 2)
        elif response.header("content-length") is not None:
            response.body += self._exactly(response, int(response.header("content-length")) - len(response.body))
        else:
            self._read_to_end(response)

    def _trailers(self):
        return fields(iter(lambda: self._upto(b"\r\n").decode("latin-1"), ""))

    def _read_to_end(self, response):
        try:
            while True:
                self._fill()
        except Cut:
            response.body += self.buffer

    def read(self, method="POST"):
        return self.read_body(self.read_head(), method)
