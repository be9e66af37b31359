"""HTTP/2 on both sides of Envoy, step by step in the test's own hands: a connection carries one request."""

import socket
import threading

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection

from .message import Message
from .upstream import TEST_ID
from .wait import DEADLINE_SECONDS, until


class Peer(Message):
    """One end of a connection, and what came from the other: headers, body and trailers.

    Bodies must fit into HTTP/2's initial window of 65,535 bytes: it is not waited for.
    """

    def __init__(self, sock, client_side, timeout=DEADLINE_SECONDS):
        super().__init__(None)
        self.ended = False   # the other end has sent all
        self.reset = False   # the stream or the connection is over, whatever is missing
        self.sock = sock
        self.sock.settimeout(timeout)
        self._h2 = H2Connection(H2Configuration(client_side=client_side, header_encoding="latin-1"))
        self._stream = 1     # the first, and only, that a client opens
        self._h2.initiate_connection()
        self._flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    @property
    def status(self):
        return int(self.header(":status"))

    def send_headers(self, headers, end=False):
        self._h2.send_headers(self._stream, headers, end_stream=end)
        self._flush()

    def send(self, data, end=False):
        self._h2.send_data(self._stream, data, end_stream=end)
        self._flush()

    def send_trailers(self, trailers):
        self.send_headers(trailers, end=True)

    def send_reset(self):
        self._h2.reset_stream(self._stream)
        self._flush()

    def read_head(self):
        return self._read(lambda: self.headers is not None)

    def read(self, upto=None):
        """Reads all that comes, or with `upto` only until these bytes have come."""
        return self._read(lambda: upto is not None and upto in self.body)

    def _read(self, is_enough):
        while not (is_enough() or self.ended or self.reset):
            for event in self._h2.receive_data(self._receive()):
                self._take(event)
            self._flush()
        return self

    def _receive(self):
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionError:
            data = b""
        self.reset = not data
        return data

    def _take(self, event):
        if isinstance(event, (events.RequestReceived, events.ResponseReceived)):
            self.headers = event.headers
        elif isinstance(event, events.DataReceived):
            self.body += event.data
        elif isinstance(event, events.TrailersReceived):
            self.trailers = event.headers
        elif isinstance(event, events.StreamEnded):
            self.ended = True
        elif isinstance(event, events.StreamReset):
            self.reset = True

    def _flush(self):
        try:
            self.sock.sendall(self._h2.data_to_send())
        except ConnectionError:
            self.reset = True


class Upstream:
    """A server for a cluster that sends one request over each connection."""

    def __init__(self):
        self._peers = {}   # whose request has begun, by test id
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def accept(self, test_id):
        """The peer that has this request, of which the headers have come."""
        return until(lambda: self._peers.pop(test_id, None), f"{test_id} to reach the upstream")

    def stop(self):
        self._listener.close()

    def _serve(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._greet, args=(sock,), daemon=True).start()

    def _greet(self, sock):
        # A connection may wait for its request, or end without one: Envoy opens it for a request that is then refused.
        peer = Peer(sock, client_side=False, timeout=None).read_head()
        if peer.headers is None:
            peer.close()
        else:
            peer.sock.settimeout(DEADLINE_SECONDS)
            self._peers[peer.header(TEST_ID)] = peer


def connect(port):
    return Peer(socket.create_connection(("127.0.0.1", port)), client_side=True)
