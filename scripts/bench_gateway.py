#!/usr/bin/env python3
"""Measure the gateway alone: CPU per forwarded request and the latency it adds.

Upstream is a real forked instance with an application that only echoes. Printed beside it: the same
application asked directly over a socket, and a plain proxy of aiohttp's server and client.

    scripts/bench_gateway.py [--connections 8] [--seconds 5]
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import uvloop
from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

BODY = json.dumps(
    {"run_id": "0" * 32, "key": "loss", "value": 0.5, "timestamp": 1700000000000, "step": 7}
).encode()
PATH = "/api/2.0/mlflow/runs/log-metric"


def request(path: str, token: str) -> bytes:
    """Return a request as a stock client sends it."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: mlflow-python-client/3.17.2\r\n"
        f"Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n"
    ).encode() + BODY


class Client(asyncio.Protocol):
    """Sends one request after the other and keeps the times."""

    def __init__(self, data: bytes, times: list[float]) -> None:
        self.data = data
        self.times = times
        self.buffer = b""
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.started = time.perf_counter()
        self.transport.write(self.data)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.times.append(time.perf_counter() - self.started)
        self.buffer = b""
        if self.stopped:
            self.transport.close()
        else:
            self.send()


async def load(port: int, data: bytes, connections: int, seconds: float) -> list[float]:
    """Return the seconds of each request."""
    times: list[float] = []
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(data, times), "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    for client in clients:
        client.stopped = True
    await asyncio.sleep(0.1)
    return times


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    name: str, pid: int, port: int, path: str, token: str, args: argparse.Namespace
) -> None:
    """Print one line of the table."""
    data = request(path, token)
    uvloop.run(load(port, data, args.connections, 0.5))
    before = cpu_seconds(pid)
    started = time.perf_counter()
    many = uvloop.run(load(port, data, args.connections, args.seconds))
    elapsed = time.perf_counter() - started
    cpu_ms = (cpu_seconds(pid) - before) * 1000 / len(many)
    one = uvloop.run(load(port, data, 1, args.seconds / 2))
    quantiles = statistics.quantiles(one, n=100)
    print(
        f"{name:28} {len(many) / elapsed:8.0f} {cpu_ms:10.3f} "
        f"{quantiles[49] * 1000:10.3f} {quantiles[98] * 1000:10.3f}",
        flush=True,
    )


@contextlib.contextmanager
def child(role: str, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run this script in another role; yields it and the words it says when it is ready."""
    command = [sys.executable, __file__, "--role", role, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        while not (line := process.stdout.readline()).startswith("serving "):
            assert line, f"{role} did not start"
        yield process, line.split()[1:]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


async def serve_gateway(port: int, *, log_requests: bool) -> None:
    """Be a gateway with one echoing tenant; its log goes to a file."""
    from tests.fixtures_gateway import EchoCell

    with tempfile.TemporaryDirectory() as folder:
        cell = EchoCell(Path(folder), port, log_requests=log_requests, idle_s=3600.0)
        log_file = await asyncio.to_thread(Path(folder, "log").open, "w")
        with log_file:
            if log_requests:
                sys.stdout = log_file
            token = cell.catalogue.put("bench")
            serving = asyncio.create_task(cell._serve())
            await asyncio.sleep(1.5)
            print("serving", token, flush=True, file=sys.__stdout__)
            await stop_signal()
            sys.stdout = sys.__stdout__
            cell.service.stop()
            await serving


async def serve_direct(port: int) -> None:
    """Be the echoing application on a TCP port."""
    import uvicorn

    from tests.cell.echo_zygote import Echo

    config = uvicorn.Config(
        Echo.__new__(Echo), host="127.0.0.1", port=port, http="httptools", log_config=None
    )
    config.app.served = 0
    config.app.config = argparse.Namespace(tenant="bench", artifact_root="/nowhere")
    config.lifespan = "off"
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    await asyncio.sleep(0.5)
    print("serving", "none", flush=True)
    await asyncio.wait([task])


async def serve_aiohttp(port: int, upstream: int) -> None:
    """Be the plain proxy that was considered: aiohttp on both sides."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    )

    async def handle(incoming: web.BaseRequest) -> web.StreamResponse:
        headers = incoming.headers.copy()
        headers.popall("Host", None)
        url = f"http://127.0.0.1:{upstream}{incoming.raw_path}"
        body = await incoming.read()
        async with session.request(incoming.method, url, headers=headers, data=body) as answer:
            return web.Response(
                status=answer.status, headers=answer.headers, body=await answer.read()
            )

    server = web.Server(handle)
    await asyncio.get_running_loop().create_server(server, "127.0.0.1", port)
    print("serving", "none", flush=True)
    await stop_signal()
    await session.close()


async def stop_signal() -> None:
    """Wait for SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()


def main() -> None:
    """Measure, or be one of the measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--role", default="")
    parser.add_argument("--port", type=int, default=28700)
    args = parser.parse_args()
    roles: dict[str, Callable[[], Awaitable[None]]] = {
        "gateway": lambda: serve_gateway(args.port, log_requests=False),
        "gateway-log": lambda: serve_gateway(args.port, log_requests=True),
        "direct": lambda: serve_direct(args.port),
        "aiohttp": lambda: serve_aiohttp(args.port, args.port - 1),
    }
    if args.role:
        uvloop.run(roles[args.role]())  # type: ignore[arg-type]
        return
    print(f"{'':28} {'req/s':>8} {'CPU ms':>10} {'p50 ms':>10} {'p99 ms':>10}")
    base = args.port
    with child("direct", "--port", str(base)) as (direct, _):
        measure("instance, directly", direct.pid, base, PATH, "none", args)
        with child("aiohttp", "--port", str(base + 1)) as (proxy, _):
            measure("aiohttp server and client", proxy.pid, base + 1, PATH, "none", args)
    for role, name in (("gateway", "gateway"), ("gateway-log", "gateway with request log")):
        with child(role, "--port", str(base + 2)) as (gateway, words):
            measure(name, gateway.pid, base + 2, "/bench" + PATH, words[0], args)


if __name__ == "__main__":
    main()
