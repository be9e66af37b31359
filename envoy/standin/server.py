"""HTTP/1.1 on 127.0.0.1."""

import argparse
import asyncio
import json

from . import openai
from .answer import Refused
from .call import Json
from .routes import reply

MAX_BODY = 64 * 1024 * 1024   # bytes
REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 413: "Content Too Large"}


async def read_head(reader):
    """(method, target, headers with names in lower case), or None if the client has left."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return None
    request_line, *lines = head[:-4].decode("latin-1").split("\r\n")
    parts = request_line.split(" ")
    if len(parts) != 3 or parts[2] != "HTTP/1.1":
        raise Refused(400, "this stand-in speaks HTTP/1.1 only", close=True)
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    return parts[0], parts[1], headers


async def read_body(reader, writer, headers):
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    length = headers.get("content-length")
    if chunked and length is not None:
        raise Refused(400, "both content-length and transfer-encoding", close=True)
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if chunked:
        return await read_chunks(reader)
    if length is None:
        return b""
    if not (length.isascii() and length.isdigit()):
        raise Refused(400, "content-length is not a number", close=True)
    if int(length) > MAX_BODY:
        raise Refused(413, "body too large", close=True)
    return await reader.readexactly(int(length))


async def read_chunks(reader):
    body = bytearray()
    while True:
        size_line = await reader.readuntil(b"\r\n")
        try:
            size = int(size_line.split(b";")[0], 16)
        except ValueError:
            raise Refused(400, "bad chunk size", close=True) from None
        if size < 0 or len(body) + size > MAX_BODY:
            raise Refused(413, "body too large", close=True)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
            return bytes(body)
        body += await reader.readexactly(size)
        if await reader.readexactly(2) != b"\r\n":
            raise Refused(400, "chunk does not end where it said", close=True)


def head(status, content_type, headers):
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"content-type": content_type, **headers}.items())
    return f"HTTP/1.1 {status} {REASONS[status]}\r\n{lines}\r\n".encode()


def write_json(writer, answer, close=False):
    body = json.dumps(answer.value).encode()
    ends = {"connection": "close"} if close else {}
    writer.write(head(answer.status, "application/json", {**answer.headers, "content-length": len(body), **ends}) + body)


async def write_stream(writer, stream):
    """Send each part in an HTTP chunk of its own, so that a reader receives them one by one."""
    writer.write(head(200, stream.content_type, {**stream.headers, "transfer-encoding": "chunked"}))
    for part in stream.parts:
        writer.write(b"%x\r\n%s\r\n" % (len(part), part))
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def serve_one(reader, writer):
    """Handle one request; False if the connection ends after it."""
    try:
        request = await read_head(reader)
        if request is None:
            return False
        method, target, headers = request
        answer = reply(method, target, await read_body(reader, writer, headers))
        keep = headers.get("connection", "").lower() != "close"
    except Refused as refused:   # refused by the server itself: the request's API is unknown
        answer = Json(openai.error(refused).value, status=refused.status)
        keep = not refused.close
    if isinstance(answer, Json):
        write_json(writer, answer, close=not keep)
    else:
        await write_stream(writer, answer)
    await writer.drain()
    return keep


async def connection(reader, writer):
    try:
        while await serve_one(reader, writer):
            pass
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client has left, or does not send HTTP
    finally:
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description="a stand-in LLM on 127.0.0.1")
    parser.add_argument("--port", type=int, default=10001, help="0 takes any free one (default: %(default)s)")
    server = await asyncio.start_server(connection, "127.0.0.1", parser.parse_args().port)
    print(f"stand-in LLM on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


def run():
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
