"""The upstream that UPSTREAM=https://host[:port] names, and whether it can be reached."""

from __future__ import annotations

import socket
import ssl
from typing import NamedTuple
from urllib.parse import urlsplit

import render
from processes import Failure

CONNECT_SECONDS = 5   # as connect_timeout in envoy.yaml


class Upstream(NamedTuple):
    scheme: str
    host: str
    port: int

    @property
    def tls(self):
        return self.scheme == "https"

    def __str__(self):
        return f"{self.scheme}://{self.host}:{self.port}"


def parse(text):
    """The Upstream that `text` names."""
    form = "UPSTREAM must look like https://host or http://host:port"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise Failure(f"{form}: {error}") from None
    if url.scheme not in ("http", "https") or not url.hostname:
        raise Failure(f"{form}, not {text!r}")
    if url.path not in ("", "/") or url.query or url.fragment:
        raise Failure(f"{form}, without a path: clients send the path themselves (such as /v1/chat/completions)")
    if url.username is not None:
        raise Failure(f"{form}, without a user name: clients send their own credentials")
    return Upstream(url.scheme, url.hostname, port or (443 if url.scheme == "https" else 80))


def check(upstream):
    """Connect to the upstream once, as Envoy will, with TLS if it uses TLS: an error here is more precise than Envoy's 503."""
    try:
        with socket.create_connection((upstream.host, upstream.port), CONNECT_SECONDS) as connection:
            if upstream.tls:
                trusted = ssl.create_default_context(cafile=render.ca_bundle())
                trusted.wrap_socket(connection, server_hostname=upstream.host).close()
    except TimeoutError:
        raise Failure(f"UPSTREAM {upstream} cannot be reached: no answer in {CONNECT_SECONDS} s") from None
    except OSError as error:
        reason = getattr(error, "verify_message", None) or error.strerror or str(error)
        raise Failure(f"UPSTREAM {upstream} cannot be reached: {reason}") from None
