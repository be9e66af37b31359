"""Between the Envoys and the store: a TCP relay that can be slow, that can end half-way through an answer, and that can lead elsewhere."""

import socket
import threading
import time


class Relay:
    """Listens on `port`, and carries each connection to `target`, another port. An answer is late by `delay` seconds; with `cut` it
    ends after so many bytes."""

    def __init__(self, target):
        self.target, self.delay, self.cut = target, 0, None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client):
        try:
            # A call ends with its half of the connection; the store closes once it has answered.
            call = b"".join(iter(lambda: client.recv(65_536), b""))
            with socket.create_connection(("127.0.0.1", self.target)) as store:
                store.sendall(call)
                store.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: store.recv(65_536), b""))
            time.sleep(self.delay)
            client.sendall(answer if self.cut is None else answer[:self.cut])
        except OSError:
            pass
        finally:
            client.close()
