"""AWS event stream frames: application/vnd.amazon.eventstream.

https://smithy.io/2.0/aws/amazon-eventstream.html, read 2026-11-22.
"""

import base64
import json
import struct
import zlib

STRING = 7


def frame(headers, payload):
    """Lengths and their checksum, headers, payload, and the checksum of it all."""
    block = b"".join(bytes([len(name)]) + name.encode() + struct.pack(">BH", STRING, len(value)) + value.encode()
                     for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + payload
    return head + struct.pack(">I", zlib.crc32(head))


def event(kind, payload):
    """An event as Bedrock sends it."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    return frame(headers, json.dumps(payload).encode())


def chunk(payload):
    """An event of `invoke-with-response-stream`: the model's own event, in Base64."""
    return event("chunk", {"bytes": base64.b64encode(json.dumps(payload).encode()).decode()})
