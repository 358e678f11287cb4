"""One user's session with one tenant, kept in a ledger: everything that the checker knows of."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from mlfleet.load import facts
from mlfleet.load.entries import (
    AliasSet,
    ArtifactPut,
    ExperimentCreate,
    Log,
    ModelCreate,
    RunCreate,
    RunFinish,
    TracePut,
    VersionCreate,
)
from mlfleet.load.ledger import Ledger

LOAD = "c0ffee00"
API = "api/2.0/mlflow"


class Session:
    """Sends what a training session sends, and claims each request in a ledger."""

    def __init__(self, ledger: Ledger, tenant: str, url: str, token: str | None) -> None:
        self.ledger, self.tenant, self.url, self.token = ledger, tenant, url, token
        self.runs = 0

    def send(self, entry: Any, path: str, body: Any, made: tuple[str, ...] = (), **how: Any) -> Any:
        """Send one request that writes; return what it answered, failing unless it was 2xx."""
        with self.ledger.claim(entry) as claim:
            status, answer = self.request(path, body, **how)
            told: Any = answer
            for key in made if status == 200 else ():
                told = told[key]
            claim.settle(status, str(told) if made and status == 200 else None)
        return status, told

    def request(
        self, path: str, body: Any, method: str = "POST", kind: str = "application/json"
    ) -> tuple[int, Any]:
        headers = {"Content-Type": kind}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, headers, method=method)
        if kind == "application/x-protobuf":
            request.add_header("x-mlflow-experiment-id", "0")
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
                return response.status, json.loads(text) if text[:1] == b"{" else {}
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, {"text": exc.read().decode()}

    def create(self, parent: str | None = None) -> tuple[str, str]:
        """Create a run; return id and name."""
        self.runs += 1
        name = facts.run_name(LOAD, f"{self.tenant}u1", self.runs, int(time.time() * 1000))
        tags = [{"key": "mlflow.parentRunId", "value": parent}] if parent else []
        body = {
            "experiment_id": "0", "run_name": name, "start_time": facts.start_ms(name),
            "tags": tags,
        }  # fmt: skip
        path = f"{API}/runs/create"
        status, run_id = self.send(
            RunCreate(self.tenant, name, parent), path, body, ("run", "info", "run_id")
        )
        assert status == 200, run_id
        return run_id, name

    def log(self, entry: Log) -> None:
        """Send a log-batch."""
        steps = range(entry.first_step, entry.last_step + 1)
        body = {
            "run_id": entry.run_id,
            "metrics": [
                {
                    "key": key, "step": step, "value": facts.metric(entry.name, key, step),
                    "timestamp": facts.metric_ms(entry.name, step),
                }
                for key in entry.metrics for step in steps
            ],
            "params": [{"key": key, "value": facts.param(entry.name, key)} for key in entry.params],
            "tags": [
                {"key": key, "value": facts.tag(entry.name, key, edition)}
                for key, edition in entry.tags
            ],
        }  # fmt: skip
        status, answer = self.send(entry, f"{API}/runs/log-batch", body)
        assert status == 200, answer

    def put(self, entry: ArtifactPut) -> None:
        """Upload a file."""
        body = facts.artifact(entry.name, entry.path, entry.size_bytes, entry.edition)
        path = f"api/2.0/mlflow-artifacts/artifacts/0/{entry.run_id}/artifacts/{entry.path}"
        status, answer = self.send(entry, path, body, method="PUT", kind="application/octet-stream")
        assert status == 200, answer

    def finish(self, run_id: str, name: str) -> None:
        """Finish a run."""
        entry = RunFinish(self.tenant, run_id, name, "FINISHED", facts.start_ms(name) + 60_000)
        body = {"run_id": run_id, "status": "FINISHED", "end_time": entry.end_ms}
        status, answer = self.send(entry, f"{API}/runs/update", body)
        assert status == 200, answer

    def trace(self, name: str, number: int, spans: int) -> None:
        """Export one trace by OTLP."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )

        export = ExportTraceServiceRequest()
        scope = export.resource_spans.add().scope_spans.add()
        begin_ns = time.time_ns()
        for index in range(spans):
            span = scope.spans.add()
            span.trace_id = bytes.fromhex(facts.trace_id(name, number))
            span.span_id = bytes.fromhex(facts.span_id(name, number, index))
            if index:
                span.parent_span_id = bytes.fromhex(facts.span_id(name, number, 0))
            span.name = f"span {index}"
            span.start_time_unix_nano, span.end_time_unix_nano = begin_ns, begin_ns + 1000
        entry = TracePut(self.tenant, "0", name, number, spans)
        status, answer = self.send(
            entry, "v1/traces", export.SerializeToString(), kind="application/x-protobuf"
        )
        assert status == 200, answer

    def register(self, run_id: str) -> str:
        """Create a model, a version from a run, and an alias; return the model's name."""
        model = f"{LOAD}-{self.tenant}-model-{self.runs}"
        path = f"{API}/registered-models/create"
        assert self.send(ModelCreate(self.tenant, model), path, {"name": model})[0] == 200
        entry = VersionCreate(self.tenant, model, run_id, f"mlflow-artifacts:/0/{run_id}/artifacts")
        body = {"name": model, "source": entry.source, "run_id": run_id}
        path = f"{API}/model-versions/create"
        status, version = self.send(entry, path, body, ("model_version", "version"))
        assert status == 200, version
        alias = {"name": model, "alias": "champion", "version": version}
        path = f"{API}/registered-models/alias"
        assert self.send(AliasSet(self.tenant, model, "champion", version), path, alias)[0] == 200
        return model

    def everything(self) -> dict[str, str]:
        """Do one of each; return the names of what was made."""
        path, name = f"{API}/experiments/create", f"{LOAD}-{self.tenant}-experiment"
        entry = ExperimentCreate(self.tenant, name)
        assert self.send(entry, path, {"name": name}, ("experiment_id",))[0] == 200
        assert self.send(entry, path, {"name": name}, ("experiment_id",))[0] == 400
        parent, parent_name = self.create()
        run_id, name = self.create(parent)
        keys = ("loss", "accuracy")
        self.log(Log(self.tenant, run_id, name, keys, 0, 49, ("lr", "big prompt"), (("phase", 1),)))
        self.log(Log(self.tenant, run_id, name, ("loss",), 50, 50))
        self.log(Log(self.tenant, run_id, name, tags=(("phase", 2),)))
        self.put(ArtifactPut(self.tenant, run_id, name, "model/weights.bin", 200_000))
        self.put(ArtifactPut(self.tenant, run_id, name, "empty.txt", 0))
        self.put(ArtifactPut(self.tenant, run_id, name, "note.txt", 5))
        self.put(ArtifactPut(self.tenant, run_id, name, "note.txt", 7, 1))
        self.trace(name, 0, 3)
        model = self.register(run_id)
        self.finish(run_id, name)
        return {"run": run_id, "name": name, "parent": parent, "parent_name": parent_name,
                "model": model}  # fmt: skip


def write_run(folder: Path, targets: list[dict[str, Any]], begin_s: float) -> None:
    """Write what a load run says of itself."""
    run = {"run": LOAD, "kind": "fleet", "started_at": begin_s, "ended_at": time.time()}
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "targets.json").write_text(json.dumps(targets))
