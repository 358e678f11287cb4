"""SQLAlchemy on the instance's one connection: nested sessions of a thread share it, others wait.

Stock MLflow opens up to four sessions inside each other (`log_batch`, `create_run`, `set_tag` of
the run's name), each with a connection of its own. Here the inner ones get the connection of the
outermost, as SQLAlchemy's `SingletonThreadPool` does it: closing an inner session only counts
down. What that changes, and why it is no harm:

* An inner commit commits what the outer has flushed so far. Stock's outer sessions have only read
  when they call inward.
* An inner rollback leaves alone what the outer has flushed: if there is anything, the inner
  transaction begins with a savepoint. (After mere reads it costs no round trip: at READ COMMITTED
  each statement has its own snapshot anyhow.)
* An inner session sees what the outer flushed; in stock it would wait for it for ever.

The engine is made once per process and survives a fork: its cache of compiled statements and what
it learnt about the server at its first connection are inherited by each instance.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection
from sqlalchemy.pool.base import _ConnectionFairy

from mlfleet.errors import DatabaseAwayError
from mlfleet.store import away
from mlfleet.store.connection import StoreConnection

_SHUT_DOWN = ("57P01", "57P02", "57P03", "53300")
"""Postgres going down, crashed, starting up, out of connections: SQLSTATE, appendix A."""


class OneConnectionPool(Pool):
    """A pool of one connection that one thread at a time holds, as often nested as it likes."""

    def __init__(self, source: StoreConnection, **options: Any) -> None:
        creator: Any = source.current  # SQLAlchemy's protocol for connections differs in one type
        super().__init__(creator, reset_on_return="rollback", **options)
        self._source = source
        self._record: ConnectionPoolEntry | None = None
        self._held = threading.local()

    def connect(self) -> PoolProxiedConnection:
        """Return this thread's connection if it holds one, else wait for a turn."""
        held = getattr(self._held, "current", None)
        fairy = held() if held is not None else None
        if fairy is not None and fairy.dbapi_connection is not None:
            existing: PoolProxiedConnection = fairy._checkout_existing()
            return existing
        return _ConnectionFairy._checkout(self, self._held)

    def _do_get(self) -> ConnectionPoolEntry:
        raw: Any = self._source.acquire()
        try:
            if self._record is None or self._record.dbapi_connection is not raw:
                self._record = self._create_connection()
        except BaseException:
            self._source.release()
            raise
        return self._record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._held.current = None
        self._source.release()

    def dispose(self) -> None:
        """Give the server connection back."""
        self._record = None
        self._source.close()

    def recreate(self) -> "OneConnectionPool":
        """Return the pool itself: a second one could not share the turns."""
        return self

    def status(self) -> str:
        """Return one line for SQLAlchemy's logs."""
        return f"OneConnectionPool open: {self._source.is_open}"


class _Nesting:
    """Replaces begin, commit and rollback of a dialect, so that inner rollbacks stay inside."""

    def __init__(self, dialect: Any) -> None:
        self._has_written = False
        self._savepoints: set[int] = set()
        self._commit, self._rollback = dialect.do_commit, dialect.do_rollback
        dialect.do_begin, dialect.do_commit = self.begin, self.commit
        dialect.do_rollback = self.rollback

    def saw(self, *event: Any) -> None:
        """Note a statement that is about to run (SQLAlchemy's `before_cursor_execute`)."""
        if not event[2].startswith("SELECT"):
            self._has_written = True

    def begin(self, fairy: Any) -> None:
        """Begin a transaction; Postgres' own begins with the first statement."""
        level = getattr(fairy, "_counter", 1)
        if level > 1 and self._has_written:
            self._run(fairy, f"SAVEPOINT mlfleet_{level}")
            self._savepoints.add(level)

    def commit(self, fairy: Any) -> None:
        """Commit, for whichever level asks."""
        self._has_written = False
        self._savepoints.clear()
        self._commit(fairy)

    def rollback(self, fairy: Any) -> None:
        """Roll back to where this level began."""
        level = getattr(fairy, "_counter", 1)
        if level in self._savepoints:
            self._savepoints.discard(level)
            self._run(fairy, f"ROLLBACK TO SAVEPOINT mlfleet_{level}")
            return
        self._has_written = False
        self._savepoints.clear()
        self._rollback(fairy)

    @staticmethod
    def _run(fairy: Any, text: str) -> None:
        with fairy.cursor() as cursor:
            cursor.execute(text)


def make_engine(source: StoreConnection) -> sqlalchemy.Engine:
    """Return an engine over the one connection; nothing is connected yet."""
    engine = sqlalchemy.create_engine(
        # Written out: SQLAlchemy 2.1 reads a bare postgresql:// as psycopg 3.
        "postgresql+psycopg2://",
        pool=OneConnectionPool(source),
        # Asking each new connection for the type numbers of hstore costs a round trip.
        use_native_hstore=False,
    )
    sqlalchemy.event.listen(engine, "before_cursor_execute", _Nesting(engine.dialect).saw)
    return engine


Maker = Callable[..., contextlib.AbstractContextManager[Any]]


def make_session_maker(engine: sqlalchemy.Engine) -> Maker:
    """Return stock's managed session maker, with "the database is away" told apart."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import REQUEST_LIMIT_EXCEEDED
    from mlflow.store.db.db_types import POSTGRES
    from mlflow.store.db.utils import _get_managed_session_maker

    stock = _get_managed_session_maker(sessionmaker(bind=engine), POSTGRES)

    @contextlib.contextmanager
    def managed_session(read_only: bool = True) -> Iterator[Any]:
        try:
            with stock(read_only=read_only) as session:
                yield session
        except MlflowException as exc:
            if isinstance(exc.__cause__, MemoryError):
                raise exc.__cause__ from None  # the instance answers 429 and starts afresh
            sentence = _away_sentence(exc.__cause__)
            if sentence is None:
                raise
            away.note(sentence)
            raise MlflowException(sentence, REQUEST_LIMIT_EXCEEDED) from exc

    return managed_session


def _away_sentence(cause: BaseException | None) -> str | None:
    if isinstance(cause, DatabaseAwayError):
        return str(cause)
    if isinstance(cause, DBAPIError) and (
        cause.connection_invalidated or getattr(cause.orig, "pgcode", None) in _SHUT_DOWN
    ):
        return "The database went away during the call. Try again."
    return None
