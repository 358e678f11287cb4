"""The cell of a fleet on one machine: start its process, know when it serves, end it.

The cell is started through `database/launch.py`, which ties it to this process: when the
supervisor is killed with -9 the kernel interrupts the cell, and the cell's own children end with
it. It has a session of its own, so that Ctrl-C in a terminal reaches the supervisor only, which
stops things in order.
"""

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from mlfleet.database import launch
from mlfleet.errors import FleetError
from mlfleet.settings import Settings

_TAIL_BYTES = 16384
# The reason of a JSON line, or the last line of a traceback.
_COMPLAINT = re.compile(r'"reason": "((?:[^"\\]|\\.)*)"|\b(\w+(?:Error|Exception|Exit): .+)')


class CellProcess:
    """One `python -m mlfleet.cell`, started anew as often as it is asked to be.

    Must be started by a thread that lives as long as this process: the kernel ends the cell when
    the thread that started it ends.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        """Remember what to start.

        Args:
            settings: everything the cell is told, the administrator's address included.
            log: file that the cell's lines are appended to.
        """
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while the cell runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def is_running(self) -> bool:
        """Return whether the process is there."""
        return self.pid is not None

    def start(self) -> None:
        """Start the process; return before it serves."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLEET_")}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    launch.__file__,
                    "plain",
                    str(os.getpid()),
                    sys.executable,
                    "-m",
                    "mlfleet.cell",
                ],
                env={**environment, **self._settings.to_environ()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_ready(self) -> bool:
        """Return whether the cell says that it can serve."""
        connection = http.client.HTTPConnection(
            _reachable(self._settings.host), self._settings.port, timeout=1
        )
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False

    def wait_until_ready(self, wait_s: float) -> None:
        """Return when the cell serves.

        Raises:
            FleetError: it ended or took too long, with the last line of its log.
        """
        deadline = time.monotonic() + wait_s
        while not self.is_ready():
            if self.pid is None:
                raise FleetError(f"the cell ended while starting: {self.complaint()}")
            if time.monotonic() > deadline:
                raise FleetError(f"the cell is not ready after {wait_s:.0f} s: {self.complaint()}")
            time.sleep(0.01)

    def complaint(self) -> str:
        """Return the newest line of the log that says what is wrong, and where to read more."""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        found = (match for line in reversed(lines) if (match := _COMPLAINT.search(line)))
        first = next(found, None)
        return f"{first[1] or first[2] if first else 'it gave no reason'} (log: {self._log})"

    def ask_to_stop(self) -> None:
        """Ask the cell to finish what is in flight and end."""
        if self._process and self.pid is not None:
            self._process.send_signal(signal.SIGTERM)

    def wait(self, wait_s: float) -> bool:
        """Return whether the cell ended within this time."""
        if self._process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, wait_s))
            return True
        return False

    def kill(self) -> None:
        """End the cell at once; its children notice and end, too."""
        if self._process and self.pid is not None:
            self._process.kill()
            self._process.wait()


def _reachable(host: str) -> str:
    """Return an address by which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
