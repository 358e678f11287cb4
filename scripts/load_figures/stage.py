"""What every row needs: a fleet of its own, load on it, and the figures of the run."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import fleet as fleets
from benchmarks.fleet import COMMAND, Fleet
from mlfleet.load import events, figures, requests

WAIT_S = 300.0
"""For a run to end after its time: last answers, accounts, report."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """Where and how much to measure."""

    folder: Path
    """For the fleets' data; removed afterwards."""
    runs: Path
    """The folders of the load runs are kept here."""
    port: int
    is_quick: bool

    def say(self, text: str) -> None:
        """Print one line of progress with the time of day."""
        print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)

    def seconds(self, full: float, quick: float) -> float:
        """Return how long a row takes."""
        return quick if self.is_quick else full

    def count(self, full: int, quick: int) -> int:
        """Return how many a row takes."""
        return quick if self.is_quick else full

    @contextlib.contextmanager
    def fleet(self, name: str, **settings: object) -> Iterator[Fleet]:
        """Run a fleet of the row's own; settings are fields of `mlfleet.settings.Settings`."""
        with fleets.running(self.folder / name, self.port, **settings) as fleet:
            self.say(f"{name}: a fleet answers on port {self.port}")
            yield fleet

    def run_folder(self, name: str) -> Path:
        """Return a new folder for a load run."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return (self.runs / f"{stamp}-figure-{name}").absolute()


@dataclasses.dataclass
class LoadRun:
    """One `mlfleet load run` in the background."""

    folder: Path
    process: subprocess.Popen[bytes]

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait for its end and return its figures; those of a limit that was passed, too."""
        self.process.wait(seconds + WAIT_S)
        return document(self.folder)

    def stop(self) -> None:
        """End it early, Locust and its workers with it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
                return


@contextlib.contextmanager
def load(fleet: Fleet, folder: Path, *options: object) -> Iterator[LoadRun]:
    """Put load on a fleet for as long as the context lasts, or until the run ends by itself."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [COMMAND, "load", "run", "--data", fleet.data, "--run-folder", folder, *options]
    with (folder / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=log, stderr=log, process_group=0
        )
    run = LoadRun(folder, process)
    try:
        yield run
    finally:
        run.stop()


def wait_until_it_began(run: LoadRun, wait_s: float = 120.0) -> None:
    """Return when users have had their first answers."""
    end = time.monotonic() + wait_s
    while not any(run.folder.glob(requests.PATTERN)):
        if run.process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"no load: read {run.folder / 'run.log'}")
        time.sleep(0.2)


def document(folder: Path) -> dict[str, Any]:
    """Return the figures of a run, from what its folder holds."""
    run, check = _json(folder / "run.json"), _json(folder / "check.json")
    tallies, users = requests.read(folder)
    rows = list(requests.read_lines(folder, "resources.jsonl"))
    return figures.figures(run or {}, tallies, users, rows, list(events.read(folder)), check)


def _json(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def ms(seconds: float | None) -> str:
    """Return a latency for the table."""
    if seconds is None:
        return "none"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def mib(count: float | None) -> str:
    """Return a size for the table."""
    return "not known" if count is None else f"{count / 1024**2:,.0f} MiB"


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """Return a run's figures without what only charts need, and without this machine's paths."""
    kept = {name: value for name, value in found.items() if name not in ("series", "events")}
    run = {name: value for name, value in found.get("run", {}).items() if name != "command"}
    return kept | {"run": run}


def missing(found: dict[str, Any]) -> str:
    """Return what the accounts say, for the table."""
    accounts = found["accounts"]
    if accounts is None:
        return "accounts not checked"
    return (
        "every acknowledged row is there"
        if accounts["is_good"]
        else (f"{accounts['findings_in_all']} findings in the accounts")
    )
