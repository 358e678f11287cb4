"""Real fleets for tests, started by the command as a person would."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures_postgres import free_port

MLFLEET = Path(sys.executable).with_name("mlfleet")
START_S = 60


def eventually(condition: Callable[[], Any], within_s: float = 10.0) -> Any:
    """Return the first true answer of `condition`; fail when there is none in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, AssertionError):
            if answer := condition():
                return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {within_s} s: {condition}")


def descendants(pid: int) -> set[int]:
    """Return the processes below `pid`, all generations."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = set(), [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.add(child)
            todo.append(child)
    return found


def is_alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclasses.dataclass
class RunningFleet:
    """One `mlfleet up` and how to talk to it."""

    data: Path
    port: int
    process: subprocess.Popen[str]
    answer: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.answer["url"])

    def command(self, *arguments: object, check: bool = True, **options: Any) -> Any:
        """Run another command on this fleet; return its JSON document."""
        done = self.run(*arguments, "--json", **options)
        if check:
            assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run(self, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run another command on this fleet."""
        return subprocess.run(
            [MLFLEET, *map(str, arguments), "--data", self.data],
            capture_output=True, text=True, check=False, timeout=120, **options,
        )  # fmt: skip

    def call(
        self, tenant: str, token: str | None, path: str, body: Any = None, timeout_s: float = 60
    ) -> tuple[int, dict[str, Any]]:
        """Send one request to MLflow's REST API; return status and document."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(
            f"{self.url}/{tenant}/api/2.0/mlflow/{path}",
            None if body is None else json.dumps(body).encode(),
            headers,
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                return response.status, json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as exc:
            with exc:
                text = exc.read().decode()
            with contextlib.suppress(ValueError):
                return exc.code, json.loads(text)
            return exc.code, {"text": text}

    def stop(self, number: int = signal.SIGINT, within_s: float = 10.0) -> float:
        """Ask the fleet to stop; return how many seconds it took."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        if self.process.stdout:
            self.process.stdout.close()
        return time.monotonic() - began


Start = Callable[..., RunningFleet]


@pytest.fixture(scope="session")
def fleet_starter() -> Iterator[Start]:
    """Start fleets; what is still running at the end is stopped."""
    running: list[RunningFleet] = []

    def start(
        data: Path,
        *options: object,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        command: tuple[object, ...] = (MLFLEET,),
    ) -> RunningFleet:
        port = port or free_port()
        arguments = ["up", "--json", "--data", data, "--port", port, *options]
        with (data.parent / f"{data.name}.stderr").open("a") as errors:
            process = subprocess.Popen(
                [str(part) for part in (*command, *arguments)],
                stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip
        fleet = RunningFleet(data, port, process, {})
        running.append(fleet)
        fleet.answer = _read_document(fleet, Path(errors.name))
        return fleet

    yield start
    for fleet in running:
        fleet.stop()


def _read_document(fleet: RunningFleet, errors: Path) -> dict[str, Any]:
    """Return the JSON document that `up` prints when it serves."""
    text = ""
    for line in fleet.process.stdout or ():
        text += line
        if line == "}\n":
            return dict(json.loads(text))
    raise AssertionError(f"the fleet did not start: {errors.read_text()}")


@pytest.fixture(scope="session")
def fleet(fleet_starter: Start, tmp_path_factory: pytest.TempPathFactory) -> RunningFleet:
    """One fleet for all tests that do not stop it."""
    return fleet_starter(tmp_path_factory.mktemp("fleet") / "data", "--demo")
