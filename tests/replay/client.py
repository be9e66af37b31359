"""Sends requests at their time, whatever became of those before, over kept connections."""

import asyncio
import time
from dataclasses import dataclass

import wire
import workload
from upstream import CHAT


@dataclass(frozen=True)
class Outcome:
    """What became of one request, as its client saw it."""

    request: workload.Request
    status: int
    headers: dict
    seconds: float   # from its first byte sent to the answer's last byte read

    def told(self, name):
        return self.headers.get(f"x-bursar-{name}")


class Client:
    """One listener's or server's connections."""

    def __init__(self, port):
        self.port = port
        self.idle = []

    async def connect(self, count):
        """Opens connections ahead."""
        self.idle += await asyncio.gather(*(self._open() for _ in range(count)))

    async def send(self, request, body=None):
        body = workload.body(request) if body is None else body
        data = head(request, len(body)) + body
        connection = self.idle.pop() if self.idle else await self._open()
        started = time.monotonic()
        line, headers, _ = await self._exchange(connection, data)
        return Outcome(request, int(line.split(" ")[1]), headers, time.monotonic() - started)

    async def get(self, path):
        connection = self.idle.pop() if self.idle else await self._open()
        return (await self._exchange(connection, wire.head(f"GET {path} HTTP/1.1", [("host", "replay")])))[2]

    async def _open(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def _exchange(self, connection, data):
        reader, writer = connection
        writer.write(data)
        message = await wire.read_message(reader)
        if message[1].get("connection") == "close":
            writer.close()
        else:
            self.idle.append(connection)
        return message

    def close(self):
        for _, writer in self.idle:
            writer.close()


def head(request, length):
    return wire.head(f"POST {CHAT} HTTP/1.1", [
        ("host", "replay"), ("content-type", "application/json"), ("content-length", length),
        ("x-tenant-id", request.tenant), ("x-test-id", request.id),
        ("x-replay", f"{request.prompt},{request.output},{request.seconds:.6f}")])


async def replay(schedule):
    """Sends each (client, request) at its time: (outcomes in the schedule's order, how late each was sent)."""
    loop = asyncio.get_running_loop()
    start = loop.time() + 0.1
    tasks, late = [], []
    for client, request in schedule:
        await asyncio.sleep(max(0, start + request.at - loop.time()))
        late.append(loop.time() - start - request.at)
        tasks.append(loop.create_task(client.send(request)))
    return await asyncio.gather(*tasks), late
