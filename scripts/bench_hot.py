"""Measure the hot writes of one instance, without gateway: calls/s, CPU per call, latency.

    python scripts/bench_hot.py postgresql://postgres:PASSWORD@127.0.0.1:5432/DATABASE

The database must hold MLflow's schema and the default experiment (a tenant's clone of the
template); runs are added to it. The instance is one process (uvicorn on loopback, MLflow behind the
hot writes) and the load generator another; both share this machine's cores with Postgres.

`--inline` measures the rejected design: the statement runs on the event loop, no writer thread.
`--stock` hands every call to stock MLflow in the same process (the store's one connection).
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PORT = 27461
PATH = "/api/2.0/mlflow/runs/"
HEAD = "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def serve(uri: str, mode: str, switch_s: float) -> None:
    """Run the instance until it is terminated."""
    from mlfleet.cell import application

    application.prepare_environment()
    import uvicorn

    from mlfleet.cell.threads import Threads
    from mlfleet.database.access import DatabaseAccess
    from mlfleet.store.hot import HotCalls
    from mlfleet.store.installation import StoreConfig, install

    part = urllib.parse.urlsplit(uri)
    access = DatabaseAccess(
        part.hostname or "",
        part.port or 5432,
        part.path[1:],
        part.username or "",
        urllib.parse.unquote(part.password or ""),
    )
    connection = install(StoreConfig(access, tempfile.mkdtemp(), 0, "bench"))
    stock = application.assemble(Threads(8))
    app: Any = stock if mode == "stock" else HotCalls(stock, connection)
    if mode == "inline":
        run_inline(app)
    if switch_s:
        sys.setswitchinterval(switch_s)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=PORT,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


def run_inline(app: Any) -> None:
    """Let the event loop itself carry out what came in since its last turn."""
    writer, waiting = app._writer, []

    def flush() -> None:
        batch, waiting[:] = list(waiting), []
        while batch or writer._deferred:
            batch, writer._deferred = batch + writer._deferred, []
            groups = writer._groups(batch)
            batch = []
            for group in groups:
                app._hand_out(writer._carry_out(group))

    def submit(token: Any, call: Any) -> None:
        if not waiting:
            asyncio.get_running_loop().call_soon(flush)
        waiting.append((token, call))

    writer.submit = submit


def cpu_s(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def postgres_cpu_s(database: str) -> float:
    """Return the CPU seconds of the server processes that work for this database."""
    total = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            title = (process / "cmdline").read_bytes()
            if title.startswith(b"postgres:") and f" {database} ".encode() in title:
                total += cpu_s(int(process.name))
        except (OSError, IndexError):
            continue
    return total


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> bytes:
    """Send one request on a kept connection and return the answer's body."""
    writer.write(data)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{head!r} {body!r}")
    return body


def request(name: str, fields: dict[str, Any]) -> bytes:
    """Return the bytes of one call."""
    body = json.dumps(fields).encode()
    head = HEAD.format(path=PATH + name) + f"content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def metric_call(run_id: str, n: int) -> bytes:
    """A `log-metric` as the stock client sends it."""
    fields = {"run_uuid": run_id, "run_id": run_id, "key": f"loss_{n % 5}", "value": n * 0.37}
    return request("log-metric", {**fields, "timestamp": 1700000000000 + n, "step": n})


def batch_call(run_id: str, n: int) -> bytes:
    """A steady `log-batch`: 100 metrics, and the same 20 params each time."""
    metrics = [
        {"key": f"metric_{i}", "value": n + i * 0.37, "timestamp": 1700000000000 + n, "step": n}
        for i in range(100)
    ]
    params = [{"key": f"param_{i}", "value": f"value {i}"} for i in range(20)]
    return request("log-batch", {"run_id": run_id, "metrics": metrics, "params": params})


def tag_call(run_id: str, n: int) -> bytes:
    """A `set-tag`."""
    return request("set-tag", {"run_id": run_id, "key": f"tag_{n % 10}", "value": f"value {n}"})


def param_call(run_id: str, n: int) -> bytes:
    """A `log-parameter`, a new one each time."""
    return request("log-parameter", {"run_id": run_id, "key": f"param-{n}", "value": str(n)})


def create_call(run_id: str, n: int) -> bytes:
    """A `runs/create`."""
    tags = [{"key": "mlflow.user", "value": "bench"}]
    return request("create", {"experiment_id": "0", "start_time": n, "tags": tags})


CALLS: dict[str, Callable[[str, int], bytes]] = {
    "log-metric": metric_call,
    "log-batch": batch_call,
    "set-tag": tag_call,
    "log-parameter": param_call,
    "runs/create": create_call,
}


async def client(make: Callable[[str, int], bytes], until: float, took: list[float]) -> None:
    """One client: its own run, its own connection, one call after the other."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT, limit=2**20)
    run = json.loads(await post(reader, writer, create_call("", 0)))["run"]["info"]["run_id"]
    n = 0
    while (start := time.perf_counter()) < until:
        await post(reader, writer, make(run, n))
        took.append(time.perf_counter() - start)
        n += 1
    writer.close()


async def measure(
    name: str, connections: int, seconds: float, pid: int, database: str
) -> dict[str, Any]:
    """Return calls/s, milliseconds of CPU per call and latency for one kind of call."""
    took: list[float] = []
    before, postgres_before = cpu_s(pid), postgres_cpu_s(database)
    start = time.perf_counter()
    until = start + seconds
    async with asyncio.TaskGroup() as clients:
        for _ in range(connections):
            clients.create_task(client(CALLS[name], until, took))
    elapsed, calls = time.perf_counter() - start, len(took)
    took.sort()
    return {
        "call": name,
        "connections": connections,
        "per_s": round(calls / elapsed),
        "instance_cpu_ms": round((cpu_s(pid) - before) / calls * 1000, 3),
        "postgres_cpu_ms": round((postgres_cpu_s(database) - postgres_before) / calls * 1000, 3),
        "p50_ms": round(took[calls // 2] * 1000, 2),
        "p99_ms": round(took[calls * 99 // 100] * 1000, 2),
    }


def wait_until_up(process: subprocess.Popen[bytes]) -> None:
    """Wait for the instance's first answer."""

    async def once() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        await post(reader, writer, create_call("", 0))
        writer.close()

    for _ in range(300):
        try:
            return asyncio.run(once())
        except OSError:
            if process.poll() is not None:
                raise SystemExit("the instance ended; see its output above") from None
            time.sleep(0.1)
    raise SystemExit("the instance did not come up within 30 s")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one JSON line per kind of call and number of connections."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("uri")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--calls", nargs="+", default=["log-metric", "log-batch"], choices=CALLS)
    parser.add_argument("--switch", type=float, default=0.0, help="GIL switch interval in seconds")
    parser.add_argument("--inline", action="store_const", const="inline", dest="mode")
    parser.add_argument("--stock", action="store_const", const="stock", dest="mode")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.uri, options.mode or "thread", options.switch)
        return
    database = urllib.parse.urlsplit(options.uri).path[1:]
    command = [sys.executable, __file__, *(arguments or sys.argv[1:]), "--serve"]
    process = subprocess.Popen(command)
    try:
        wait_until_up(process)
        for name in options.calls:
            for connections in options.connections:
                result = asyncio.run(
                    measure(name, connections, options.seconds, process.pid, database)
                )
                print(json.dumps({"mode": options.mode or "thread", **result}), flush=True)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
