"""AWS event stream frames: https://smithy.io/2.0/aws/amazon-eventstream.html"""

import base64
import json
import struct
import zlib

CONTENT_TYPE = "application/vnd.amazon.eventstream"
STRING = 7   # the type of a header's value


def event(kind, payload):
    """One event: lengths and their checksum, headers, payload, and the checksum of the whole event."""
    headers = {":event-type": kind, ":content-type": "application/json", ":message-type": "event"}
    block = b"".join(bytes([len(name)]) + name.encode() + struct.pack(">BH", STRING, len(value)) + value.encode()
                     for name, value in headers.items())
    data = json.dumps(payload).encode()
    prelude = struct.pack(">II", 16 + len(block) + len(data), len(block))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + block + data
    return head + struct.pack(">I", zlib.crc32(head))


def chunk(payload):
    """A model's own event inside an event of InvokeModelWithResponseStream."""
    return event("chunk", {"bytes": base64.b64encode(json.dumps(payload).encode()).decode()})
