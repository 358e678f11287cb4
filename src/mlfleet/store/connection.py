"""The one server connection of an instance: whose turn it is, when it is opened and given back.

Everything an instance says to Postgres goes over one connection, so the connection budget of a
fleet is plain arithmetic and stock MLflow's deadlock on its own pool (64 clients on `log-batch`)
cannot happen. The price is turns: callers get the connection in the order they asked for it.

The connection is opened at first use, closed after `idle_s` without use and reopened on demand;
one that is wanted again soon after it was closed is kept longer from then on, since a new session
costs Postgres some 10 ms.
While Postgres is away a caller waits at most `wait_s` and then gets `DatabaseAwayError`. Before
each use the socket is looked at without a round trip: a server that went away has hung up, and
that shows as readable. A server that is frozen, or whose node is lost, keeps its sockets open: a
call that takes longer than `wait_s` is cut off if a second connection gets no answer either, so
a long search on a living server is left alone. No session state, no prepared statements and no
`options=` are used, so PgBouncer may stand in between in transaction mode.

What this leaves out: nesting in one thread. `store/pool.py` gives nested MLflow sessions the same
connection; here a holder that asks again would wait for itself.
"""

import collections
import contextlib
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from psycopg2.extensions import connection as PgConnection  # noqa: N812

from mlfleet.database.access import DatabaseAccess
from mlfleet.errors import DatabaseAwayError

log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_MOST_TRIES = 3
_LONGEST_KEPT_S = 60.0
_SOON = 4
"""A connection is missed if it is wanted within so many times the time it was kept idle."""
_PROBE_S = 5.0
"""A server that does not even refuse a new connection within this time is not there."""


class FairLock:
    """A lock that is handed over in the order of arrival; `threading.Lock` promises none."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held = False
        self._waiting: collections.deque[threading.Lock] = collections.deque()

    def acquire(self, timeout_s: float) -> bool:
        """Return whether the lock was got within `timeout_s`; 0 only tries."""
        with self._mutex:
            if not self._held:
                self._held = True
                return True
            if timeout_s <= 0:
                return False
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=timeout_s):
            return True
        with self._mutex:
            if turn not in self._waiting:  # handed over between the timeout and here: it is ours
                return True
            self._waiting.remove(turn)
            return False

    def release(self) -> None:
        """Hand the lock to the one that waits longest, if any; any thread may call this."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False


class StoreConnection:
    """One lazily opened psycopg2 connection and the turns on it."""

    def __init__(self) -> None:
        self._turns = FairLock()
        self._access: DatabaseAccess | None = None
        self._idle_s = 5.0
        self._wait_s = 20.0
        self._raw: PgConnection | None = None
        self._socket: socket.socket | None = None
        """A second handle on the connection's socket: psycopg2's own is locked during a call."""
        self._taken = 0.0
        """When the current holder got its turn."""
        self._last_used = 0.0
        self._kept_s = self._idle_s
        """How long this connection may be idle."""
        self._given_back = -math.inf
        self._watcher: threading.Thread | None = None
        self._stop = threading.Event()

    def configure(self, access: DatabaseAccess, *, idle_s: float, wait_s: float) -> None:
        """Serve this database from now on; a connection to another one is closed."""
        self.close()
        self._access, self._idle_s, self._wait_s = access, idle_s, wait_s
        self._kept_s, self._given_back = idle_s, -math.inf

    @property
    def is_open(self) -> bool:
        """Whether a server connection exists now (for the connection count of `status`)."""
        raw = self._raw
        return raw is not None and not raw.closed

    def acquire(self) -> PgConnection:
        """Return the connection, open and outside any transaction, for this caller alone.

        Raises:
            DatabaseAwayError: no turn, or no server, within `wait_s`.
        """
        deadline = time.monotonic() + self._wait_s
        if not self._turns.acquire(self._wait_s):
            raise DatabaseAwayError(
                f"The database connection was busy for {self._wait_s:g} s with calls that came "
                "first. Nothing was changed; try again."
            )
        self._taken = time.monotonic()
        try:
            return self._opened(deadline)
        except BaseException:
            self._turns.release()
            raise

    def release(self) -> None:
        """Give the turn on; an unfinished transaction is rolled back."""
        try:
            self._settle()
        finally:
            self._turns.release()

    @contextlib.contextmanager
    def lease(self) -> Iterator[PgConnection]:
        """Hold the connection for the length of a `with` block."""
        raw = self.acquire()
        try:
            yield raw
        finally:
            self.release()

    def execute(self, text: str, values: dict[str, Any], may_repeat: bool) -> list[tuple[Any, ...]]:
        """Run a statement that is a transaction of its own and return its rows.

        When the connection breaks, whether the commit happened is unknown.

        Args:
            text: the statement.
            values: its parameters.
            may_repeat: a second time changes nothing, so it is sent again when that happens.

        Raises:
            DatabaseAwayError: the server was not there, or went away during the call.
            psycopg2.Error: the server refused the statement.
        """
        for tries in range(1, _MOST_TRIES + 1):
            with self.lease() as raw:
                raw.autocommit = True
                try:
                    with raw.cursor() as cursor:
                        cursor.execute(text, values)
                        return cursor.fetchall()
                except psycopg2.Error as exc:
                    if not raw.closed:
                        raise
                    reason = str(exc).strip()
                finally:
                    if not raw.closed:
                        raw.autocommit = False
            log.info("hot_statement_cut_off", extra={"tries": tries, "reason": reason})
            if not may_repeat:
                break
        raise DatabaseAwayError("The database went away during the call. Try again.")

    def current(self) -> PgConnection:
        """Return the open connection to the caller that holds the turn (SQLAlchemy's creator)."""
        return self._opened(time.monotonic() + self._wait_s)

    def close(self) -> None:
        """Give the server connection back and end the watcher thread (before a fork, at exit)."""
        watcher = self._watcher
        if watcher is not None:
            self._stop.set()
            watcher.join()
            self._stop.clear()
            self._watcher = None
        if not self._turns.acquire(self._wait_s):
            log.warning("connection_closed_in_use")
            self._drop()
            return
        self._drop()
        self._turns.release()

    def _opened(self, deadline: float) -> PgConnection:
        if self._raw is not None and _hung_up(self._raw):
            log.info("database_hung_up")
            self._drop()
        if self._raw is None:
            self._raw = self._connect(deadline)
            was_missed = time.monotonic() - self._given_back < _SOON * self._kept_s
            longest = max(self._idle_s, _LONGEST_KEPT_S)
            self._kept_s = min(2 * self._kept_s, longest) if was_missed else self._idle_s
            self._socket = socket.socket(fileno=os.dup(self._raw.fileno()))
            self._watch()
        return self._raw

    def _connect(self, deadline: float) -> PgConnection:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return self._connect_once(deadline)
            except psycopg2.OperationalError as exc:
                if time.monotonic() + pause_s >= deadline:
                    log.warning("database_away", extra={"reason": str(exc).strip()})
                    raise DatabaseAwayError(
                        f"The database did not take a connection for {self._wait_s:g} s. "
                        "Nothing was changed; try again."
                    ) from exc
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _connect_once(self, deadline: float) -> PgConnection:
        if self._access is None:
            raise DatabaseAwayError("The store has no database yet: call store.install() first.")
        return psycopg2.connect(
            host=self._access.host,
            port=self._access.port,
            dbname=self._access.name,
            user=self._access.user,
            password=self._access.password,
            application_name="mlfleet",
            # libpq rounds 1 up to 2 and takes 0 as "for ever".
            connect_timeout=max(2, round(deadline - time.monotonic())),
            # A server that vanishes without a word (a node lost) must not hold a call for the
            # two hours of the kernel's defaults.
            keepalives_idle=15,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30000,
            gssencmode="disable",
        )

    def _settle(self) -> None:
        raw = self._raw
        if raw is None:
            return
        self._last_used = time.monotonic()
        if raw.closed:
            self._drop()
        elif raw.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            try:
                raw.rollback()
            except psycopg2.Error:
                self._drop()

    def _drop(self) -> None:
        raw, self._raw = self._raw, None
        handle, self._socket = self._socket, None
        if raw is not None:
            with contextlib.suppress(psycopg2.Error):
                raw.close()
        if handle is not None:
            handle.close()

    def _watch(self) -> None:
        """Start the thread that looks after an open connection; it ends when that is closed."""
        if self._watcher is None:
            self._watcher = threading.Thread(
                target=self._look_after, name="connection-watch", daemon=True
            )
            self._watcher.start()

    def _look_after(self) -> None:
        """Give the connection back when nobody uses it; end a call that nobody will answer."""
        pause_s = self._kept_s
        while not self._stop.wait(pause_s):
            pause_s = min(self._kept_s, self._wait_s)
            if not self._turns.acquire(0):
                self._cut_off_if_frozen()
                continue
            pause_s = self._last_used + self._kept_s - time.monotonic()
            if pause_s <= 0:
                self._drop()
                self._given_back = time.monotonic()
                self._watcher = None  # under the turn, as in `_watch`
            self._turns.release()
            if pause_s <= 0:
                return

    def _cut_off_if_frozen(self) -> None:
        taken, handle = self._taken, self._socket
        if time.monotonic() - taken < self._wait_s or self._answers():
            return
        if self._taken == taken and handle is not None:
            log.warning("database_frozen", extra={"call_s": round(time.monotonic() - taken, 1)})
            with contextlib.suppress(OSError):  # closed meanwhile: the call has ended
                handle.shutdown(socket.SHUT_RDWR)

    def _answers(self) -> bool:
        """Whether the server says anything at all to a new connection, be it a refusal."""
        began = time.monotonic()
        try:
            self._connect_once(began + _PROBE_S).close()
        except psycopg2.OperationalError:
            return time.monotonic() - began < _PROBE_S - 1
        return True


def _hung_up(raw: PgConnection) -> bool:
    """Whether the server closed an idle connection: an idle socket is readable only at its end."""
    if raw.closed:
        return True
    poll = select.poll()
    poll.register(raw.fileno(), select.POLLIN)
    return bool(poll.poll(0))
