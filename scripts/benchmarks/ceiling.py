"""How much the load generator itself can do: a server that answers at once with a fixed text.

If this is far above what any measured server reaches, the generator is not what was measured.
Run as a program, this module is that server: `python -m benchmarks.ceiling PORT`.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import cast

import uvloop

from benchmarks import client, load, wire

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class _Answer(asyncio.Protocol):
    def __init__(self) -> None:
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            head, _, body = data.partition(b"\r\n\r\n")
            at = head.find(b"Content-Length: ")
            length = int(head[at + 16 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            self._missing = length - len(body)
        if self._missing <= 0:
            self._missing = 0
            self._transport.write(_ANSWER)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Answer, "127.0.0.1", port)
    await server.serve_forever()


@contextlib.contextmanager
def _answering(port: int) -> Iterator[wire.Target]:
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.ceiling", str(port)])
    target = wire.Target("127.0.0.1", port)
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                client.call(target, "GET", "/")
                break
            time.sleep(0.02)
        yield target
    finally:
        process.terminate()
        process.wait()


def measure(port: int, seconds: float) -> dict[str, float]:
    """Return requests per second and client CPU per request for small and for large requests."""
    figures: dict[str, float] = {}
    with _answering(port) as target:
        for name, requests in (("log_metric", wire.log_metric), ("log_batch", wire.log_batch)):
            streams = [requests(target, f"{n:032x}") for n in range(8)]
            seen = load.run(target.address, streams, seconds)
            count = sum(seen.statuses.values())
            figures[f"{name}_per_s"] = round(seen.rate)
            figures[f"{name}_client_cpu_ms"] = round(1000 * seen.client_cpu_s / count, 4)
    return figures


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(int(sys.argv[1])))
