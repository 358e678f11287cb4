"""Bring new databases to disk soon after they were made, not when somebody waits for it.

A clone is some 640 files. Postgres has each one synced by its next checkpoint, and DROP DATABASE
waits for one: after 400 clones that took minutes. So a thread asks for a checkpoint when clones
pause, and whoever drops has the file system written in one sweep before (`sync -f`), after which
the syncs of single files find nothing to do.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable

import psycopg2

from mlfleet.database.connect import Connection, connect
from mlfleet.database.statement import run
from mlfleet.errors import FleetError

log = logging.getLogger(__name__)

QUIET_S = 2.0
"""Pause after the last clone before the checkpoint, so that a storm of first requests is over."""


def write_file_system(connection: Connection) -> None:
    """Have the server's machine write its file system; needs a superuser, else does nothing."""
    with contextlib.suppress(psycopg2.errors.InsufficientPrivilege, psycopg2.errors.DataException,
                             psycopg2.errors.ExternalRoutineException):  # fmt: skip
        # The working folder of a server process is its data folder.
        run(connection, "COPY (SELECT 1) TO PROGRAM 'sync -f . >/dev/null'")


def checkpoint(uri: str) -> None:
    """Bring everything to disk; an administrator that may not order it leaves it to the server."""
    connection = connect(uri)
    try:
        write_file_system(connection)
        run(connection, "CHECKPOINT", if_allowed=True)
    finally:
        connection.close()


class Settler:
    """Calls `settle` in a thread of its own, `quiet_s` after the last of any number of clones."""

    def __init__(self, settle: Callable[[], None], quiet_s: float = QUIET_S) -> None:
        self._settle, self._quiet_s = settle, quiet_s
        self._changed = threading.Condition()
        self._cloned_at: float | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def cloned(self) -> None:
        """Note that a database was made just now."""
        with self._changed:
            self._cloned_at = time.monotonic()
            if self._thread is None and not self._is_closed:
                # A daemon: a process that ends leaves the checkpoint to the server.
                self._thread = threading.Thread(target=self._run, name="settler", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """End the thread; a checkpoint that is under way is not waited for."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        while self._wait_until_quiet():
            began = time.monotonic()
            try:
                self._settle()
            except (FleetError, psycopg2.Error) as exc:
                log.info("settling_failed", extra={"reason": str(exc).strip()})
            else:
                log.debug("settled", extra={"settle_s": round(time.monotonic() - began, 3)})

    def _wait_until_quiet(self) -> bool:
        with self._changed:
            while not self._is_closed:
                if self._cloned_at is None:
                    self._changed.wait()
                elif (left_s := self._cloned_at + self._quiet_s - time.monotonic()) > 0:
                    self._changed.wait(left_s)
                else:
                    self._cloned_at = None
                    return True
        return False
