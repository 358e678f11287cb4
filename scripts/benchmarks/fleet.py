"""A fleet started by `mlfleet up` on its own data folder and port, used as its users use it."""

import contextlib
import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import client
from benchmarks.database import Postgres
from benchmarks.stock import environment
from benchmarks.wire import Target
from mlfleet.load import processes

START_S = 60.0
STOP_S = 40.0
COMMAND = str(Path(sys.executable).with_name("mlfleet"))


class Fleet:
    """One running fleet."""

    def __init__(self, data: Path, port: int, settings: dict[str, str]) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.data, self.port = data.resolve(), port
        (data / "fleet.json").unlink(missing_ok=True)
        self.settings = settings
        self._environ = environment() | settings | {"MLFLEET_DATA": str(self.data)}
        command = [COMMAND, "up", "--port", str(port), "--data", str(self.data)]
        started = time.perf_counter()
        with (data / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=self._environ, stdout=log, stderr=log, process_group=0
            )
        self._wait_until_ready()
        self.start_s = time.perf_counter() - started
        """From `exec` of `mlfleet up` to the first /readyz that answered 200 and `fleet.json`."""

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + START_S
        url = f"http://127.0.0.1:{self.port}/readyz"
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
                if (self.data / "fleet.json").exists():
                    return
            time.sleep(0.02)
        text = (self.data / "up.log").read_text(errors="replace")
        self.stop()
        raise client.BenchError(f"mlfleet up is not ready, its last output: {text[-800:]}")

    def command(self, *arguments: str, stdin: str | None = None) -> Any:
        """Run an `mlfleet` command with --json and return what it prints."""
        done = subprocess.run(
            [COMMAND, *arguments, "--json"],
            env=self._environ,
            input=stdin,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise client.BenchError(f"mlfleet {' '.join(arguments)}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def create(self, names: Sequence[str]) -> list[Target]:
        """Register tenants (which wakes nobody) and return how their clients reach them."""
        answer = self.command("tenant", "create", "--file", "-", stdin="\n".join(names) + "\n")
        rows = answer["tenants"] if isinstance(answer, dict) else answer
        return [_target(row) for row in rows]

    @property
    def postgres(self) -> Postgres:
        """The fleet's Postgres, as its administrator."""
        return Postgres(json.loads((self.data / "fleet.json").read_text())["admin_uri"])

    def cell(self, method: str, path: str) -> Any:
        """Ask the cell's admin API."""
        cells = json.loads((self.data / "fleet.json").read_text())["cells"]
        (admin_socket,) = cells.values()
        return client.call_unix(Path(admin_socket), method, path)

    def sleep(self, target: Target) -> None:
        """Put a tenant to sleep; return when its process is gone."""
        self.cell("POST", f"/sleep{target.prefix}")

    def metrics(self) -> dict[str, float]:
        """Return the gateway's Prometheus samples by name and labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def tree(self) -> list[processes.Process]:
        """Return all processes under `mlfleet up`, Postgres included."""
        return processes.tree(self._process.pid)

    def roles(self) -> dict[processes.Process, str]:
        """Return all processes by what they are."""
        found = self.tree()
        zygotes = {p.pid for p in found if "mlfleet.cell.zygote" in p.command}
        instances = {p.pid for p in found if p.parent in zygotes}

        def role(process: processes.Process) -> str:
            if process.name == "postgres":
                return "Postgres"
            if process.pid in instances:
                return "instance"
            if process.pid in zygotes:
                return "zygote"
            return "gateway" if process.command.endswith("-m mlfleet.cell") else "supervisor"

        return {process: role(process) for process in found}

    def having(self, role: str) -> list[processes.Process]:
        """Return the processes of one role."""
        return [process for process, its in self.roles().items() if its == role]

    def gateway(self) -> processes.Process:
        """Return the cell's gateway process."""
        (process,) = self.having("gateway")
        return process

    def stop(self) -> None:
        """Stop as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                for process in self.tree():
                    with contextlib.suppress(ProcessLookupError):
                        processes.end(process.pid)
                self._process.wait()


def _target(row: dict[str, Any]) -> Target:
    url = urllib.parse.urlsplit(row["url"])
    assert url.hostname and url.port
    return Target("127.0.0.1", url.port, url.path.rstrip("/"), row["token"])


@contextlib.contextmanager
def running(data: Path, port: int, **settings: object) -> Iterator[Fleet]:
    """Run a fleet; settings are fields of `mlfleet.settings.Settings`, the rest keep defaults."""
    variables = {f"MLFLEET_{name.upper()}": str(value) for name, value in settings.items()}
    fleet = Fleet(data, port, variables)
    try:
        yield fleet
    finally:
        fleet.stop()
