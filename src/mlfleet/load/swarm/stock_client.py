"""A user that calls the real `mlflow` client, one tracking URI each; for some dozens of users.

The client costs several times the CPU of the server it calls, so this kind is for proving that the
requests of the others are like its own, not for load.
"""

import functools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import gevent.local  # type: ignore[import-untyped]

from mlfleet.load import facts
from mlfleet.load.entries import ArtifactPut, Entry, Log, RunCreate, RunFinish
from mlfleet.load.shapes import STORM_PATIENCE_S
from mlfleet.load.swarm.run import clock
from mlfleet.load.swarm.user import DEFAULT_EXPERIMENT, LoadUser
from mlfleet.load.swarm.wire import Answer
from mlfleet.load.targets import Target

_METRICS = ("loss", "accuracy", "learning_rate")
_PARAMS = ("optimizer", "batch_size", "epochs")
_FILE_BYTES = 32 << 10


class _Sent(gevent.local.local):  # type: ignore[misc]
    """How many requests this user's client has sent in the call that it makes now."""

    requests = 0


_sent = _Sent()


@functools.cache
def client_class() -> Callable[[str], Any]:
    """Import the client, and count what it sends; takes seconds, so before any user is due."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import urllib3.connection
    from mlflow import MlflowClient

    send = urllib3.connection.HTTPConnection.request

    def counted(*arguments: Any, **more: Any) -> None:
        _sent.requests += 1
        send(*arguments, **more)

    urllib3.connection.HTTPConnection.request = counted  # type: ignore[method-assign]
    client: Callable[[str], Any] = MlflowClient
    return client


def uri_with_token(target: Target) -> str:
    """Return a tracking URI that carries the token: the variable for it is the whole process'."""
    if target.token is None:
        return target.url
    parts = urlsplit(target.url)
    return parts._replace(netloc=f"load:{target.token}@{parts.netloc}").geturl()


class StockClient(LoadUser):
    """A training script: a run with params, metrics, a file, and its end."""

    key: ClassVar[str] = "mlflow"

    def move(self) -> None:
        """Speak with another tenant."""
        super().move()
        self.mlflow = client_class()(uri_with_token(self.target))

    def storm(self) -> None:
        """Make the one call of a wake storm, then only be there."""
        self._create()
        self.sleep(STORM_PATIENCE_S)

    def session(self) -> None:
        """Train once."""
        run_id, name = self._create()
        for step in range(0, 2 * self.draw.randint(3, 6), 2):
            self._log(run_id, name, step, params=_PARAMS if step == 0 else ())
        self._put(run_id, name)
        self._finish(run_id, name)

    def _create(self) -> tuple[str, str]:
        name = self.new_run_name()
        made = self._ask(
            "mlflow create_run",
            RunCreate(self.target.tenant, name),
            lambda: (
                self.mlflow.create_run(
                    DEFAULT_EXPERIMENT, start_time=facts.start_ms(name), run_name=name
                ).info.run_id
            ),
            made=str,
        )
        return made, name

    def _log(self, run_id: str, name: str, step: int, params: tuple[str, ...]) -> None:
        from mlflow.entities import Metric, Param

        metrics = [
            Metric(key, facts.metric(name, key, at), facts.metric_ms(name, at), at)
            for key in _METRICS
            for at in (step, step + 1)
        ]
        texts = [Param(key, facts.param(name, key)) for key in params]
        self._ask(
            "mlflow log_batch",
            Log(self.target.tenant, run_id, name, _METRICS, step, step + 1, params),
            lambda: self.mlflow.log_batch(run_id, metrics=metrics, params=texts),
        )

    def _put(self, run_id: str, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "weights.bin"
            file.write_bytes(facts.artifact(name, "model/weights.bin", _FILE_BYTES))
            self._ask(
                "mlflow log_artifact",
                ArtifactPut(self.target.tenant, run_id, name, "model/weights.bin", _FILE_BYTES),
                lambda: self.mlflow.log_artifact(run_id, str(file), "model"),
            )

    def _finish(self, run_id: str, name: str) -> None:
        end_ms = time.time_ns() // 1_000_000
        self._ask(
            "mlflow set_terminated",
            RunFinish(self.target.tenant, run_id, name, "FINISHED", end_ms),
            lambda: self.mlflow.set_terminated(run_id, "FINISHED", end_ms),
        )

    def _ask(
        self,
        name: str,
        entry: Entry,
        call: Callable[[], Any],
        made: Callable[[Any], str] | None = None,
    ) -> Any:
        """Make a call of the client at its time and account for it; the client itself resends."""
        from mlflow.exceptions import MlflowException

        intended = self.due(self.pace.paced(clock()), name)
        self.until(intended)
        _sent.requests = 0
        value, status, problem = None, 200, ""
        with self.asking(), self.ledger.claim(entry) as claim:
            try:
                value = call()
            except MlflowException as exc:
                status, problem = exc.get_http_status_code(), str(exc)[:120]
            told = made(value) if made and not problem else None
            claim.settle(status, told, resent=max(0, _sent.requests - 1))
        self.record(name, "mlflow", Answer(status, problem=problem), intended)
        if problem:
            self.give_up(name, problem)
        return value
