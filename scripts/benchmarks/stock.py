"""Stock `mlflow server` 3.17.2 as users start it, on a database of its own in the fleet's Postgres.

The database is migrated before, so that the start we compare with is not a first start. Telemetry
is switched off: it would try to reach the internet.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import client
from benchmarks.wire import Target
from mlfleet.load import processes

START_S = 120.0
STOP_S = 20.0


def environment() -> dict[str, str]:
    """Return the environment without anything of ours or of MLflow's in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLFLEET_"))}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def migrate(database_uri: str) -> None:
    """Bring an empty database to MLflow's schema, as the stock command does it."""
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", database_uri]
    subprocess.run(command, check=True, env=environment(), capture_output=True)


class Stock:
    """One running stock server, its process group and where clients reach it."""

    def __init__(self, database_uri: str, folder: Path, port: int, options: list[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.target = Target("127.0.0.1", port)
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--backend-store-uri", database_uri, *options]
        started = time.perf_counter()
        with (folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment(), stdout=log, stderr=log, process_group=0
            )
        client.wait_for_run(self.target, START_S)
        self.start_s = time.perf_counter() - started
        """From `exec` to the first `runs/create` that was answered."""

    def tree(self) -> list[processes.Process]:
        """Return all processes of the server."""
        return processes.tree(self._process.pid)

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


@contextlib.contextmanager
def running(database_uri: str, folder: Path, port: int, *options: str) -> Iterator[Stock]:
    """Run a stock server; options are those of `mlflow server`, none means its defaults."""
    server = Stock(database_uri, folder, port, list(options))
    try:
        yield server
    finally:
        server.stop()
