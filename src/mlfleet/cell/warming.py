"""Warm MLflow before the first fork: everything an instance would build lazily is built once here.

The application is driven with real requests, over a real connection, against a throw-away
database, so that MLflow's, SQLAlchemy's and the loader's caches are filled in memory that all
instances share. Then all traces of it (engines, stores, threads) are removed.
"""

import asyncio
import gc
import json
import logging
import secrets
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from mlfleet.cell import application
from mlfleet.cell.instance import Server
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.threads import Threads
from mlfleet.cell.wsgi import ASGIApp
from mlfleet.database.access import DatabaseAccess
from mlfleet.errors import FleetError

log = logging.getLogger(__name__)

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_PROTOBUF = "application/x-protobuf"
_GRAPHQL = "query R($data: MlflowGetRunInput!) {mlflowGetRun(input: $data) {run {info {runName}}}}"


def warm(database: DatabaseAccess) -> Callable[[InstanceConfig], ASGIApp]:
    """Import and warm MLflow; return what builds a tenant's application in a fork."""
    import uvloop

    application.prepare_environment()
    from mlfleet.store.hot import HotCalls
    from mlfleet.store.installation import reset

    threads = Threads(application.THREADS)
    stock = application.assemble(threads)
    # Modules stay for ever: the one collection before the first fork need not walk them (0.2 s).
    gc.freeze()

    def build(config: InstanceConfig) -> HotCalls:
        return HotCalls(stock, application.use_store(config))

    async def drive() -> None:
        app = build(_config(database, folder))
        await _drive(app)
        await app.close()

    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(drive())
    threads.stop()
    reset()
    if (count := threading.active_count()) != 1:
        names = [thread.name for thread in threading.enumerate()]
        raise RuntimeError(f"{count} threads are left before the first fork: {names}")
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
        database_wait_s=5.0,
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
        """Send one request; a path without a leading slash is one of MLflow's tracking API."""
        path = path if path.startswith("/") else f"{API}/{path}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
        ours, theirs = socket.socketpair()
        self.server.accept(theirs)
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(_head(method, path, len(data), headers) + data)
        answer = await reader.read()
        writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        if (status := int(head.split(b" ", 2)[1])) >= 500:
            log.warning("warming_failed", extra={"path": path, "status": status})
        return json.loads(rest) if b"application/json" in head else rest


def _head(method: str, path: str, body_bytes: int, headers: dict[str, str]) -> bytes:
    fields = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": str(body_bytes),
        "connection": "close",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


async def _requests(client: _Client) -> None:
    # A name of its own, so that a database can serve two zygotes after one another.
    name = f"warm-{secrets.token_hex(4)}"
    experiment = await client.call("POST", "experiments/create", {"name": name})
    if "experiment_id" not in experiment:
        raise FleetError(f"MLflow could not be warmed on its throw-away database: {experiment}")
    experiment_id = experiment["experiment_id"]
    created = await client.call("POST", "runs/create", {"experiment_id": experiment_id})
    run_id = created["run"]["info"]["run_id"]
    for method, path, body in _calls(name, experiment_id, run_id):
        await client.call(method, path, body)
    await client.call(
        "POST", "/v1/traces", _trace(), content_type=_PROTOBUF, x_mlflow_experiment_id=experiment_id
    )
    await client.call("PUT", f"{ARTIFACTS}/warm/file.txt", b"x" * 100_000)
    for path in (f"{ARTIFACTS}/warm/file.txt", f"{ARTIFACTS}?path=warm"):
        await client.call("GET", path)
    await client.call("DELETE", f"{ARTIFACTS}/warm/file.txt")


def _calls(name: str, experiment_id: str, run_id: str) -> Iterator[tuple[str, str, Any]]:
    """What clients and the UI ask most, and three calls that fail."""
    run, now = {"run_id": run_id}, {"timestamp": 1, "step": 0}
    searched = {"experiment_ids": [experiment_id], "max_results": 10}
    yield "GET", f"runs/get?run_id={run_id}", None
    metrics = [{"key": f"m{n}", "value": 0.5, **now} for n in range(20)]
    params = [{"key": f"p{n}", "value": "1"} for n in range(20)]
    # With a query the hot route hands a call to stock: both ways are warmed.
    for way in ("", "?stock"):
        batch = {"metrics": metrics, "params": params, "tags": []}
        yield "POST", f"runs/create{way}", {"experiment_id": experiment_id}
        yield "POST", f"runs/log-batch{way}", {**run, **batch}
        yield "POST", f"runs/log-metric{way}", {**run, "key": "loss", "value": 0.5, **now}
        yield "POST", f"runs/log-parameter{way}", {**run, "key": "depth", "value": "3"}
        yield "POST", f"runs/set-tag{way}", {**run, "key": "colour", "value": "red"}
        yield "POST", f"runs/update{way}", {**run, "status": "FINISHED", "end_time": 1}
        yield "POST", f"runs/search{way}", searched
    yield "POST", "experiments/create?stock", {"name": f"{name}-stock"}
    condition = {"filter": "metrics.loss < 1 and params.depth = '3' and tags.colour = 'red'"}
    yield "POST", "runs/search", {**searched, **condition, "order_by": ["metrics.loss DESC"]}
    yield "GET", f"metrics/get-history?run_id={run_id}&metric_key=loss", None
    yield "POST", "experiments/search", {"max_results": 10}
    yield "GET", f"experiments/get?experiment_id={experiment_id}", None
    yield "GET", f"experiments/get-by-name?experiment_name={name}", None
    yield "GET", f"artifacts/list?run_id={run_id}", None
    yield "POST", "registered-models/create", {"name": name}
    yield "GET", "registered-models/search", None
    source = {"name": name, "source": f"mlflow-artifacts:/{experiment_id}/{run_id}/artifacts/m"}
    yield "POST", "model-versions/create", {**source, **run}
    yield "GET", "model-versions/search", None
    yield "POST", "logged-models/search", searched
    yield "POST", "/graphql", {"query": _GRAPHQL, "variables": {"data": {"runId": run_id}}}
    yield "GET", "/", None
    yield "GET", "/api/3.0/mlflow/server-info", None
    yield "GET", "/ajax-api/3.0/mlflow/mcp-servers", None
    yield "GET", "/health", None
    yield "GET", "/nothing-here", None
    yield "GET", f"runs/get?run_id={'0' * 32}", None
    yield "POST", "runs/log-metric", {"run_id": 5}


def _trace() -> bytes:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add()
    span.name, span.trace_id, span.span_id = "warm", bytes(15) + b"w", bytes(7) + b"w"
    span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
    return bytes(request.SerializeToString())
