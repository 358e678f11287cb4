"""Stock `mlflow server` as users start it, to compare a fleet with: a database of its own, a port.

The database is migrated before, so that the start is not a first start. Telemetry is switched off:
it would try to reach the internet.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from mlfleet.errors import FleetError
from mlfleet.load import processes

START_S = 300.0
STOP_S = 20.0
_PAUSE_S = 0.005


def environment() -> dict[str, str]:
    """Return the environment without anything of ours or of MLflow's in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLFLEET_"))}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def migrate(database_uri: str) -> None:
    """Bring an empty database to MLflow's schema, as the stock command does it."""
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", database_uri]
    subprocess.run(command, check=True, env=environment(), capture_output=True)


class StockServer:
    """One running server: its process group, and where clients reach it."""

    def __init__(self, database_uri: str, folder: Path, port: int, options: list[str]) -> None:
        """Start it and wait for its first answer.

        Args:
            database_uri: as SQLAlchemy reads it; already migrated.
            folder: its working folder; artifacts and the log are there.
            port: on 127.0.0.1.
            options: further ones of `mlflow server`; none means its defaults.

        Raises:
            FleetError: it does not answer in time.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.folder = port, folder
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--backend-store-uri", database_uri, *options]
        started = time.perf_counter()
        with (folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment(), stdout=log, stderr=log, process_group=0
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise
        self.start_s = time.perf_counter() - started
        """From `exec` to the first `runs/create` that was answered."""

    @property
    def url(self) -> str:
        """What a client puts into MLFLOW_TRACKING_URI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that the others descend from."""
        return self._process.pid

    def tree(self) -> list[processes.Process]:
        """Return all processes of the server."""
        return processes.tree(self.pid)

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + START_S
        while not _creates_a_run(self.port):
            if self._process.poll() is not None or time.monotonic() > end:
                raise FleetError(
                    f"`mlflow server` did not answer on port {self.port}:"
                    f" read {self.folder / 'server.log'}"
                )
            time.sleep(_PAUSE_S)

    def stop(self) -> None:
        """Stop the server and whatever it started."""
        pids = [process.pid for process in self.tree()]
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_S)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


def _creates_a_run(port: int) -> bool:
    body = json.dumps({"experiment_id": "0", "start_time": time.time_ns() // 1_000_000})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/api/2.0/mlflow/runs/create", body, headers)
        return connection.getresponse().status == 200
    return False


@contextlib.contextmanager
def running(database_uri: str, folder: Path, port: int, *options: str) -> Iterator[StockServer]:
    """Run a stock server; options are those of `mlflow server`, none means its defaults."""
    server = StockServer(database_uri, folder, port, list(options))
    try:
        yield server
    finally:
        server.stop()
