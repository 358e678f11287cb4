"""MLflow REST requests, byte for byte as the stock client 3.17.2 sends them.

A client that logs counts its steps up, so every request of a stream differs. The digits that
change have a fixed width (JSON allows spaces before a number): length and headers stay the same
and a request costs one `bytes.replace`.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

API = "/api/2.0/mlflow"
METRICS, PARAMS = 100, 20
"""Size of a `log-batch` call in every benchmark."""
_STEP = 2_000_000_000
"""Stands for the step in a template: ten digits, like no other number in it."""

Requests = Callable[["Target", str], Iterator[bytes]]
"""Makes the endless requests of one client from a server and the id of a run or experiment."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One tracking server as its client sees it."""

    host: str
    port: int
    prefix: str = ""
    token: str | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect."""
        return self.host, self.port

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """Return the whole HTTP/1.1 request."""
        payload = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {self.prefix}{path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "User-Agent: mlflow-python-client/3.17.2",
            "Accept-Encoding: gzip, deflate",
            "Accept: */*",
            "Connection: keep-alive",
            "X-MLflow-Client-Version: 3.17.2",
        ]
        if self.token:
            lines.append(f"Authorization: Bearer {self.token}")
        if body is not None:
            lines += [f"Content-Length: {len(payload)}", "Content-Type: application/json"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + payload


def _counting(template: bytes, first: int) -> Iterator[bytes]:
    placeholder = str(_STEP).encode()
    for step in itertools.count(first):
        yield template.replace(placeholder, b"%10d" % step)


def _first_step() -> int:
    """Return a step that no earlier stream of this run has reached: 100 per millisecond."""
    return time.time_ns() // 10_000 % 1_900_000_000


def log_metric(target: Target, run_id: str) -> Iterator[bytes]:
    """One metric, its step counting up."""
    body = {
        "run_uuid": run_id,
        "key": "loss",
        "value": 0.5,
        "timestamp": time.time_ns() // 1_000_000,
        "step": _STEP,
        "run_id": run_id,
    }
    return _counting(target.request("POST", f"{API}/runs/log-metric", body), _first_step())


def batch(run_id: str, metrics: int, params: int, step: int) -> dict[str, Any]:
    """Return the body of a `log-batch` call."""
    now_ms = time.time_ns() // 1_000_000
    return {
        "run_id": run_id,
        "metrics": [
            {"key": f"metric_{i:03d}", "value": 0.25 + i, "timestamp": now_ms, "step": step}
            for i in range(metrics)
        ],
        "params": [{"key": f"param_{i:02d}", "value": f"value {i}"} for i in range(params)],
    }


def log_batch(target: Target, run_id: str, first_step: int | None = None) -> Iterator[bytes]:
    """100 metrics of one new step and the same 20 params each time (the steady state)."""
    body = batch(run_id, METRICS, PARAMS, _STEP)
    template = target.request("POST", f"{API}/runs/log-batch", body)
    return _counting(template, _first_step() if first_step is None else first_step)


def log_parameter(target: Target, run_id: str) -> Iterator[bytes]:
    """A new param each time."""
    body = {"run_uuid": run_id, "key": f"p{_STEP}", "value": "0.001", "run_id": run_id}
    template = target.request("POST", f"{API}/runs/log-parameter", body)
    return _counting(template, _first_step())


def set_tag(target: Target, run_id: str) -> Iterator[bytes]:
    """The same tag with a new value each time."""
    body = {"run_uuid": run_id, "key": "stage", "value": f"v{_STEP}", "run_id": run_id}
    return _counting(target.request("POST", f"{API}/runs/set-tag", body), _first_step())


def create_run(target: Target, experiment_id: str) -> Iterator[bytes]:
    """A new run of an experiment."""
    body = {
        "experiment_id": experiment_id,
        "user_id": "bench",
        "start_time": time.time_ns() // 1_000_000,
    }
    return itertools.repeat(target.request("POST", f"{API}/runs/create", body))


def search_runs(target: Target, experiment_id: str) -> Iterator[bytes]:
    """The newest 50 runs of an experiment, as the UI and `search_runs` ask."""
    body = {"experiment_ids": [experiment_id], "run_view_type": "ACTIVE_ONLY", "max_results": 50}
    return itertools.repeat(target.request("POST", f"{API}/runs/search", body))


def get_experiment(target: Target, experiment_id: str) -> Iterator[bytes]:
    """One experiment."""
    path = f"{API}/experiments/get?experiment_id={experiment_id}"
    return itertools.repeat(target.request("GET", path))


def get_run(target: Target, run_id: str) -> Iterator[bytes]:
    """One run with its latest metrics, params and tags."""
    return itertools.repeat(target.request("GET", f"{API}/runs/get?run_id={run_id}"))
