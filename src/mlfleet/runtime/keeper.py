"""Start a process again when it ends by itself, at once the first time, then ever less often."""

import logging
from collections.abc import Callable
from typing import Protocol

from mlfleet.errors import FleetError
from mlfleet.runtime.restart import Crashes

log = logging.getLogger(__name__)


class Restartable(Protocol):
    """A process that can be started any number of times."""

    def is_running(self) -> bool:
        """Return whether the process is there."""

    def start(self) -> object:
        """Start it; only called while it is not running."""


class Keeper:
    """Keeps one process running; time is handed in, in seconds on a clock that never goes back."""

    def __init__(
        self, name: str, process: Restartable, now: float, say: Callable[[str], None]
    ) -> None:
        """Watch a process that was started just now; `say` tells a person what happens."""
        self._say = say
        self._name = name
        self._process = process
        self._started_at = now
        self._crashes = Crashes()
        self._retry_at: float | None = None

    def look(self, now: float) -> None:
        """Notice an end, and start again when it is time to."""
        if self._process.is_running():
            return
        if self._retry_at is None:
            self._note_end(now)
        if self._retry_at is not None and now >= self._retry_at:
            self._start(now)

    def _note_end(self, now: float) -> None:
        ran_s = now - self._started_at
        self._crashes = self._crashes.after(ran_s)
        self._retry_at = now + self._crashes.delay_s
        fields = {
            "part": self._name,
            "ran_s": round(ran_s, 1),
            "in_a_row": self._crashes.in_a_row,
            "restart_in_s": self._crashes.delay_s,
        }
        log.error("process_ended", extra=fields)
        self._say(f"{self._name} ended by itself; starting it again")

    def _start(self, now: float) -> None:
        self._retry_at, self._started_at = None, now
        try:
            self._process.start()
        except FleetError as exc:
            log.error("restart_failed", extra={"part": self._name, "reason": str(exc)})
            self._say(f"{self._name} did not start: {exc}")
        else:
            log.info("restarted", extra={"part": self._name})
