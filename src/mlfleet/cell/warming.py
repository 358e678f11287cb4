"""Warm MLflow before the first fork: everything an instance would build lazily is built once here.

The application is driven with real requests, over a real connection, against a throw-away
database, so that MLflow's, SQLAlchemy's and the loader's caches are filled in memory that all
instances share. Then all traces of it (engines, stores, threads) are removed.
"""

import asyncio
import json
import logging
import socket
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from mlfleet.cell import application
from mlfleet.cell.instance import Server
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.threads import Threads
from mlfleet.cell.wsgi import ASGIApp
from mlfleet.database.access import DatabaseAccess

log = logging.getLogger(__name__)

API = "/api/2.0/mlflow"


def warm(database: DatabaseAccess) -> Callable[[InstanceConfig], ASGIApp]:
    """Import and warm MLflow; return what builds a tenant's application in a fork."""
    import uvloop

    application.prepare_environment()
    from mlfleet.store.away import AwayGuard
    from mlfleet.store.installation import reset

    threads = Threads(application.THREADS)
    app = AwayGuard(application.assemble(threads))
    with tempfile.TemporaryDirectory() as folder:
        application.use_store(_config(database, folder))
        uvloop.run(_drive(app))
    threads.stop()
    reset()
    if (count := threading.active_count()) != 1:
        names = [thread.name for thread in threading.enumerate()]
        raise RuntimeError(f"{count} threads are left before the first fork: {names}")

    def build(config: InstanceConfig) -> ASGIApp:
        application.use_store(config)
        return app

    return build


def _config(database: DatabaseAccess, folder: str) -> InstanceConfig:
    return InstanceConfig(
        tenant="warm",
        database=database,
        artifact_root=folder,
        kek_passphrase="warm",
        memory_bytes=0,
        artifact_bytes=0,
        database_idle_s=60.0,
        database_wait_s=20.0,
    )


async def _drive(app: ASGIApp) -> None:
    control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control, other:
        server = Server(app, control)
        running = asyncio.create_task(server.run())
        client = _Client(server)
        await _requests(client)
        other.close()
        await running


class _Client:
    """Sends requests to a server in the same loop, one connection each."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        ours, theirs = socket.socketpair()
        self.server.accept(theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        headers = {
            "host": "localhost",
            "content-type": "application/json",
            "content-length": str(len(data)),
            "connection": "close",
        } | headers
        head = f"{method} {path} HTTP/1.1\r\n"
        head += "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        writer.write(head.encode() + b"\r\n" + data)
        answer = await reader.read()
        writer.close()
        head_bytes, _, rest = answer.partition(b"\r\n\r\n")
        status = int(head_bytes.split(b" ", 2)[1])
        log.debug("warmed", extra={"path": path, "status": status})
        if b"application/json" in head_bytes:
            return json.loads(rest)
        return rest


async def _requests(client: _Client) -> None:
    created = await client.call(
        "POST", f"{API}/runs/create", {"experiment_id": "0", "run_name": "w"}
    )
    run_id = created["run"]["info"]["run_id"]
    await client.call(
        "POST",
        f"{API}/runs/log-batch",
        {
            "run_id": run_id,
            "metrics": [{"key": "a", "value": 1.0, "timestamp": 1, "step": 0}],
            "params": [{"key": "a", "value": "b"}],
            "tags": [],
        },
    )
    await client.call("POST", f"{API}/runs/search", {"experiment_ids": ["0"]})
