"""HTTP/1.1 on asyncio streams, for both ends of the replay."""


async def read_message(reader):
    """(first line, headers with names in lower case, body) of a request or an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding") == "chunked":
        return first, headers, await _read_chunks(reader)
    return first, headers, await reader.readexactly(int(headers.get("content-length", 0)))


async def _read_chunks(reader):
    parts = []
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        if size == 0:
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass   # trailers
            return b"".join(parts)
        parts.append(await reader.readexactly(size))
        await reader.readexactly(2)


def head(first, headers):
    lines = [first] + [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)
