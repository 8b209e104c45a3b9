"""A load on an HTTP server of this machine: a process of its own, so that it takes no time from the server's.

    python -m benchmarks.load < plan.json

The plan names the port, the requests, how many connections and for how long; the answer is the latencies, as JSON. Raw
HTTP/1.1 over kept connections: a client library would be slower than the server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import cycle
from typing import Any

MOST_REQUESTS = 200_000
MOST_SECONDS = 60.0


async def load(plan: dict[str, Any]) -> dict[str, Any]:
    """Send requests over all connections until the time is over; the last are waited for."""
    requests = cycle([encode(plan["port"], **request) for request in plan["requests"]])
    until = time.perf_counter() + min(plan["seconds"], MOST_SECONDS)
    latencies: list[float] = []
    statuses: Counter[int] = Counter()

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", plan["port"])
        while time.perf_counter() < until and len(latencies) < MOST_REQUESTS:
            began = time.perf_counter()
            writer.write(next(requests))
            statuses[await answer(reader)] += 1
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(plan["connections"])))
    return {"seconds": time.perf_counter() - began, "latencies": latencies, "statuses": dict(statuses)}


def encode(port: int, method: str, path: str, headers: dict[str, str], body: str | None = None) -> bytes:
    """A request as bytes."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *(f"{name}: {headers[name]}" for name in headers)]
    content = (body or "").encode()
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def answer(reader: asyncio.StreamReader) -> int:
    """Read one whole answer; its status."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    place = head.find(b"\r\ncontent-length:")
    assert place >= 0, head
    await reader.readexactly(int(head[place + 17 :].split(b"\r\n", 1)[0]))
    return int(head[9:12])


if __name__ == "__main__":
    print(json.dumps(asyncio.run(load(json.load(sys.stdin)))))
