"""One request at a time, for preparing and for timing single requests on a new connection."""

import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

from benchmarks import wire
from benchmarks.wire import API, Target


class BenchError(Exception):
    """A server answered what no benchmark can go on with."""


def call(target: Target, method: str, path: str, body: Any = None, wait_s: float = 120) -> Any:
    """Send one MLflow REST request on a new connection and return the JSON answer.

    Raises:
        BenchError: the status is not 200; the message holds method, path, status and answer.
    """
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    connection = http.client.HTTPConnection(*target.address, timeout=wait_s)
    try:
        payload = None if body is None else json.dumps(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, target.prefix + path, payload, headers | kind)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"{method} {target.prefix}{path}: {answer.status} {text[:400]}")
    return json.loads(text)


def create_run(target: Target, experiment_id: str = "0") -> str:
    """Create a run and return its id."""
    now_ms = time.time_ns() // 1_000_000
    body = {"experiment_id": experiment_id, "user_id": "bench", "start_time": now_ms}
    run_id: str = call(target, "POST", f"{API}/runs/create", body)["run"]["info"]["run_id"]
    return run_id


def search_runs(target: Target) -> list[Any]:
    """Return the newest runs of the default experiment."""
    body = {"experiment_ids": ["0"], "max_results": 50}
    runs: list[Any] = call(target, "POST", f"{API}/runs/search", body).get("runs", [])
    return runs


def create_experiment(target: Target, name: str, runs: int) -> str:
    """Create an experiment of runs with 10 metrics and 5 params each, and return its id."""
    answer = call(target, "POST", f"{API}/experiments/create", {"name": name})
    experiment_id: str = answer["experiment_id"]
    for _ in range(runs):
        run_id = create_run(target, experiment_id)
        call(target, "POST", f"{API}/runs/log-batch", wire.batch(run_id, 10, 5, step=1))
    return experiment_id


def log_batch(target: Target, run_id: str) -> None:
    """Log one batch of the size that every benchmark uses."""
    body = wire.batch(run_id, wire.METRICS, wire.PARAMS, step=1)
    call(target, "POST", f"{API}/runs/log-batch", body)


def first_answer_s(target: Target) -> float:
    """Return the seconds of one `runs/create`, connection included, from a client that is ready."""
    started = time.perf_counter()
    create_run(target)
    return time.perf_counter() - started


def wait_for_run(target: Target, deadline_s: float, pause_s: float = 0.005) -> None:
    """Try `runs/create` until the server answers it with 200.

    Raises:
        BenchError: it does not within `deadline_s`.
    """
    end = time.monotonic() + deadline_s
    while True:
        try:
            create_run(target)
            return
        except (OSError, http.client.HTTPException, BenchError) as exc:
            if time.monotonic() > end:
                raise BenchError(f"no runs/create within {deadline_s} s: {exc}") from exc
            time.sleep(pause_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def call_unix(socket_path: Path, method: str, path: str) -> Any:
    """Send one request to an HTTP server on a Unix socket and return the JSON answer."""
    connection = _UnixConnection(socket_path)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    if answer.status >= 300:
        raise BenchError(f"{method} {path}: {answer.status} {text[:400]}")
    return json.loads(text or "null")
