"""Write one MLflow run, as the stock client words it, with values that the checker can derive."""

import time
from collections.abc import Sequence
from typing import Any

import orjson

from mlfleet.load import facts
from mlfleet.load.entries import ArtifactPut, Log, RunCreate, RunFinish, TracePut
from mlfleet.load.swarm.user import API, LoadUser
from mlfleet.load.swarm.wire import Answer, Connection

_BYTES = "Content-Type: application/octet-stream\r\n"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"


def run_id_of(answer: Answer) -> str:
    """Return the id in the answer to `runs/create`."""
    made: str = orjson.loads(answer.body)["run"]["info"]["run_id"]
    return made


class RunWriter:
    """A run that a user writes; by its own connection, or by another of a sweep.

    Each method is one request. `paced`: the user thinks first; otherwise it follows at once.
    """

    def __init__(
        self,
        user: LoadUser,
        experiment_id: str,
        *,
        parent: str | None = None,
        paced: bool = True,
        connection: Connection | None = None,
    ) -> None:
        """Create the run."""
        self.user = user
        self.experiment_id = experiment_id
        self._connection = connection
        self.name = user.new_run_name()
        tags = [
            {"key": "mlflow.user", "value": "load"},
            {"key": "mlflow.source.name", "value": "train.py"},
            {"key": "mlflow.source.type", "value": "LOCAL"},
            {"key": "mlflow.runName", "value": self.name},
        ]
        if parent is not None:
            tags.append({"key": "mlflow.parentRunId", "value": parent})
        body = {
            "experiment_id": experiment_id,
            "user_id": "load",
            "run_name": self.name,
            "start_time": facts.start_ms(self.name),
            "tags": tags,
        }
        answer = self._post(
            "runs/create", body, paced,
            RunCreate(user.target.tenant, self.name, parent), made=run_id_of,
        )  # fmt: skip
        info = orjson.loads(answer.body)["run"]["info"]
        self.run_id: str = info["run_id"]
        self.artifact_uri: str = info["artifact_uri"]

    def log(
        self,
        metrics: Sequence[str] = (),
        first_step: int = 0,
        last_step: int = 0,
        params: Sequence[str] = (),
        tags: Sequence[tuple[str, int]] = (),
        *,
        paced: bool,
    ) -> None:
        """Log everything by one `log-batch`."""
        name = self.name
        body: dict[str, Any] = {"run_id": self.run_id}
        if metrics:
            body["metrics"] = [
                {"key": key, "value": value, "timestamp": facts.metric_ms(name, step), "step": step}
                for key in metrics
                for step, value in enumerate(
                    facts.values(name, key, first_step, last_step), first_step
                )
            ]
        if params:
            body["params"] = [{"key": key, "value": facts.param(name, key)} for key in params]
        if tags:
            body["tags"] = [{"key": k, "value": facts.tag(name, k, n)} for k, n in tags]
        entry = self._logged(tuple(metrics), first_step, last_step, tuple(params), tuple(tags))
        self._post("runs/log-batch", body, paced, entry)

    def log_metric(self, key: str, step: int, *, paced: bool) -> None:
        """Log one value by `log-metric`."""
        body = {
            "run_uuid": self.run_id,
            "key": key,
            "value": facts.metric(self.name, key, step),
            "timestamp": facts.metric_ms(self.name, step),
            "step": step,
            "run_id": self.run_id,
        }
        self._post("runs/log-metric", body, paced, self._logged((key,), step, step))

    def log_param(self, key: str, *, paced: bool) -> None:
        """Log one param by `log-parameter`."""
        value = facts.param(self.name, key)
        body = {"run_uuid": self.run_id, "key": key, "value": value, "run_id": self.run_id}
        self._post("runs/log-parameter", body, paced, self._logged(params=(key,)))

    def set_tag(self, key: str, edition: int, *, paced: bool) -> None:
        """Set one tag by `set-tag`."""
        value = facts.tag(self.name, key, edition)
        body = {"run_uuid": self.run_id, "key": key, "value": value, "run_id": self.run_id}
        self._post("runs/set-tag", body, paced, self._logged(tags=((key, edition),)))

    def put(self, path: str, size_bytes: int, *, paced: bool, label: str = "") -> None:
        """Upload one file."""
        tenant = self.user.target.tenant
        root = self.artifact_uri.removeprefix("mlflow-artifacts:/").lstrip("/")
        self._call(
            paced,
            label or "artifacts PUT",
            "PUT",
            f"{_ARTIFACTS}/{root}/{path}",
            facts.artifact(self.name, path, size_bytes),
            headers=_BYTES,
            entry=ArtifactPut(tenant, self.run_id, self.name, path, size_bytes),
        )

    def trace(self, number: int, spans: int, *, paced: bool) -> None:
        """Export one trace by OTLP."""
        body = _trace(self.name, number, spans)
        self._call(
            paced,
            "v1/traces",
            "POST",
            "/v1/traces",
            body,
            headers="Content-Type: application/json\r\n"
            f"x-mlflow-experiment-id: {self.experiment_id}\r\n",
            entry=TracePut(
                self.user.target.tenant, self.experiment_id, self.name, number, spans
            ),
        )  # fmt: skip

    def finish(self, status: str = "FINISHED", *, paced: bool = False) -> None:
        """End the run."""
        end_ms = time.time_ns() // 1_000_000
        body = {"run_uuid": self.run_id, "status": status, "end_time": end_ms,
                "run_id": self.run_id}  # fmt: skip
        entry = RunFinish(self.user.target.tenant, self.run_id, self.name, status, end_ms)
        self._post("runs/update", body, paced, entry)

    def _logged(
        self,
        metrics: tuple[str, ...] = (),
        first_step: int = 0,
        last_step: int = 0,
        params: tuple[str, ...] = (),
        tags: tuple[tuple[str, int], ...] = (),
    ) -> Log:
        return Log(
            self.user.target.tenant, self.run_id, self.name,
            metrics, first_step, last_step, params, tags,
        )  # fmt: skip

    def _post(self, name: str, body: Any, paced: bool, entry: Any, **more: Any) -> Answer:
        return self._call(paced, name, "POST", f"{API}/{name}", body, entry=entry, **more)

    def _call(self, paced: bool, *arguments: Any, **more: Any) -> Answer:
        ask = self.user.paced if paced else self.user.chained
        return ask(*arguments, connection=self._connection, **more)


def _trace(name: str, number: int, spans: int) -> dict[str, Any]:
    """Return an OTLP export of one trace: a root and its children, a millisecond each."""
    begin_ns = (facts.start_ms(name) + number) * 1_000_000
    root = facts.span_id(name, number, 0)
    rows = []
    for span in range(spans):
        row: dict[str, Any] = {
            "traceId": facts.trace_id(name, number),
            "spanId": facts.span_id(name, number, span),
            "name": "generate" if span == 0 else f"step-{span}",
            "kind": 1,
            "startTimeUnixNano": str(begin_ns + span * 1_000_000),
            "endTimeUnixNano": str(begin_ns + (spans if span == 0 else span + 1) * 1_000_000),
            "attributes": [{"key": "tokens", "value": {"intValue": str(100 + span)}}],
        }
        if span:
            row["parentSpanId"] = root
        rows.append(row)
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": rows}]}]}
