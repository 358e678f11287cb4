"""A zygote whose instances echo instead of serving MLflow: everything else about it is real.

For tests of the gateway: it starts in a fraction of a second and can be told to misbehave.
"""

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from mlfleet import log as fleet_log
from mlfleet.cell import protocol
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.zygote import Zygote


class Echo:
    """Answers with what it was asked; some paths misbehave."""

    def __init__(self, config: InstanceConfig) -> None:
        self.config = config
        self.served = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.served += 1
        path = scope["raw_path"].decode()
        query = dict(urllib.parse.parse_qsl(scope["query_string"].decode()))
        if path == "/refuse":
            await self.answer(send, 413, b"too large")
            return
        body = await self.read(receive, query)
        if path == "/crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if path == "/crash-once":
            flag = f"{self.config.artifact_root}/crashed"
            if not Path(flag).exists():  # noqa: ASYNC240
                Path(flag).touch()  # noqa: ASYNC240
                os.kill(os.getpid(), signal.SIGKILL)
        if path == "/half":
            length = query.get("length", "100").encode()
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-length", length)],
                }
            )
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            await asyncio.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        if path == "/slow":
            await asyncio.sleep(float(query["s"]))
        if path == "/big":
            await self.stream(send, int(query["mb"]))
            return
        if path == "/redirect":
            headers = [(b"location", b"http://localhost/elsewhere?x=1"), (b"set-cookie", b"a=b")]
            await self.answer(send, 307, b"", headers)
            return
        if path == "/grow":
            self.ballast = bytearray(os.urandom(1024)) * (int(query["mb"]) * 1024)
        answer = {
            "tenant": self.config.tenant,
            "pid": os.getpid(),
            "served": self.served,
            "method": scope["method"],
            "path": path,
            "query": scope["query_string"].decode(),
            "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
            "body_bytes": body[0],
            "body_sha256": body[1],
        }
        headers = [(b"content-type", b"application/json"), (b"x-mlfleet-route", b"hot")]
        await self.answer(send, 200, json.dumps(answer).encode(), headers)

    async def read(self, receive: Any, query: dict[str, str]) -> tuple[int, str]:
        size, digest, more = 0, hashlib.sha256(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            piece = message.get("body", b"")
            size += len(piece)
            digest.update(piece)
            more = message.get("more_body", False)
        return size, digest.hexdigest()

    async def stream(self, send: Any, mb: int) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        piece = b"x" * 1048576
        for _ in range(mb):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def answer(self, send: Any, status: int, body: bytes, headers: Any = ()) -> None:
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": body})


def build(config: InstanceConfig) -> Echo:
    if Path(f"{config.artifact_root}/broken").exists():
        raise RuntimeError("this tenant is made to fail while it starts")
    while Path(f"{config.artifact_root}/stuck").exists():
        signal.pause()
    return Echo(config)


def main() -> None:
    fleet_log.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(orders.fileno(), False)
    import uvicorn.protocols.http.httptools_impl  # noqa: F401 - before the fork
    import uvloop  # noqa: F401

    packet, _ = protocol.receive(orders)
    if packet:
        protocol.send(orders, ready=True, warm_s=0.1, limits=["echo only"])
        Zygote(orders, build).run()


if __name__ == "__main__":
    main()
