"""The administrator's few connections: lent one at a time, never more than a set number."""

import contextlib
import queue
import threading
from collections.abc import Iterator

import psycopg2

from mlfleet.database.connect import Connection, connect
from mlfleet.database.statement import run


class Sessions:
    """At most `most` administrator's connections of one process; may be shared by threads."""

    def __init__(self, uri: str, most: int) -> None:
        self._uri = uri
        self._slots = threading.BoundedSemaphore(most)
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()

    @contextlib.contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend a connection in autocommit mode; waits while all are lent."""
        with self._slots:
            connection = self._take()
            healthy = False
            try:
                yield connection
                healthy = True
            finally:
                # One that failed may still hold a lock: closing it gives that back.
                if healthy and self._idle.empty():
                    self._idle.put(connection)
                else:
                    connection.close()

    @contextlib.contextmanager
    def lend_locked(self, space: int, number: int) -> Iterator[Connection]:
        """Lend a connection that holds an advisory lock, which is one for all processes."""
        with self.lend() as connection:
            run(connection, "SELECT pg_advisory_lock(%s, %s)", values=(space, number))
            try:
                yield connection
            finally:
                if not connection.closed:
                    run(connection, "SELECT pg_advisory_unlock_all()")

    def close(self) -> None:
        """Close idle connections."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _take(self) -> Connection:
        with contextlib.suppress(queue.Empty):
            connection = self._idle.get_nowait()
            try:
                run(connection, "SELECT 1")
                return connection
            except psycopg2.Error:
                connection.close()
        return connect(self._uri)
