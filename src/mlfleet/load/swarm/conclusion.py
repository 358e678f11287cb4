"""After users stopped: wait for every process' ledger, then check the accounts and report."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]

from mlfleet.load import run_folder
from mlfleet.load.resources import Sampler

LEDGERS_S = 60.0
"""For workers to let their last answers come in; what is missing then counts as unknown."""
_LAST_LINE = b'["","end"]\n'
_MLFLEET = [sys.executable, "-c", "from mlfleet.cli import main; main()"]


class Conclusion:
    """The end of one run, in the background: a page that runs on shows it when it is there."""

    def __init__(
        self, folder: Path, document: dict[str, Any], sampler: Sampler, data: Path
    ) -> None:
        self.folder = folder
        self.may_check = True
        self.code = 0
        self._document, self._sampler, self._data = document, sampler, data
        self._greenlet: gevent.Greenlet | None = None

    def begin(self) -> None:
        """Begin; again does nothing."""
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._conclude)

    def wait(self) -> int:
        """Return 0 if the accounts are good and no limit is passed, else 1."""
        self.begin()
        assert self._greenlet is not None
        self._greenlet.join()
        return self.code

    def _conclude(self) -> None:
        deadline = time.monotonic() + LEDGERS_S
        while not ledgers_are_closed(self.folder) and time.monotonic() < deadline:
            gevent.sleep(0.2)
        self._sampler.stop()
        self._document["ended_at"] = run_folder.moment(time.time())
        run_folder.write_run(self.folder, self._document)
        if self.may_check:
            check = self._ask("check", "--data", str(self._data))
            if check.returncode:
                print(check.stdout + check.stderr, flush=True)
        report = self._ask("report")
        print(report.stdout + report.stderr, flush=True)
        self.code = int(
            (self.may_check and bool(check.returncode))
            or bool(report.returncode)
            or not limits_are_kept(self.folder)
        )

    def _ask(self, command: str, *options: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of `mlfleet load` on this run, as a person can later."""
        arguments = [*_MLFLEET, "load", command, str(self.folder), *options]
        return subprocess.run(arguments, capture_output=True, text=True, check=False)


def limits_are_kept(folder: Path) -> bool:
    """Say whether the report found the limits of the run kept."""
    try:
        report = json.loads((folder / "report.json").read_text())
    except FileNotFoundError:
        return False
    return all(limit["is_kept"] for limit in report["limits"])


def ledgers_are_closed(folder: Path) -> bool:
    """Say whether every process has written the last line of its ledger."""
    ledgers = list(folder.glob("accounts-*.jsonl"))
    return all(_tail(path).endswith(_LAST_LINE) for path in ledgers)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - len(_LAST_LINE)))
        return file.read()
