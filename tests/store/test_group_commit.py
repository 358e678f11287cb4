"""Calls that wait together: one statement, one commit, a verdict for each, on a real Postgres."""

import contextlib
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mlfleet.database.access import DatabaseAccess
from mlfleet.store import calls
from mlfleet.store.calls import CreateRun, RunWrite
from mlfleet.store.connection import StoreConnection
from mlfleet.store.group_commit import STOCK, Away, GroupCommit, Verdict
from tests.store.conftest import connect


class Writer:
    """A group commit on a fresh database, with its connection in the test's hand."""

    def __init__(self, access: DatabaseAccess) -> None:
        self.access = access
        self.connection = StoreConnection()
        self.connection.configure(access, idle_s=5, wait_s=10)
        self.verdicts: queue.SimpleQueue[tuple[Any, Verdict]] = queue.SimpleQueue()
        self.groups: list[int] = []
        self.commit = GroupCommit(self.connection, self._done)

    def _done(self, pairs: Sequence[tuple[Any, Verdict]]) -> None:
        self.groups.append(len(pairs))
        for pair in pairs:
            self.verdicts.put(pair)

    def together(self, waiting: Sequence[calls.Call]) -> list[Verdict]:
        """Let these calls wait at the same time; return their verdicts in order."""
        with self.connection.lease():
            first = self.new_call()
            self.commit.submit("first", first)  # the writer now stands in line with it alone
            deadline = time.monotonic() + 5
            while not self.commit._queue.empty() and time.monotonic() < deadline:
                time.sleep(0.001)
            for n, call in enumerate(waiting):
                self.commit.submit(n, call)
        found = dict(self.verdicts.get(timeout=20) for _ in range(len(waiting) + 1))
        assert isinstance(found.pop("first"), tuple)
        return [found[n] for n in range(len(waiting))]

    def new_call(self) -> CreateRun:
        call = calls.read_create(b'{"experiment_id": "0"}', uuid.uuid4().hex, "name")
        assert call is not None
        return call

    def new_runs(self, count: int) -> list[str]:
        new = [self.new_call() for _ in range(count)]
        assert all(isinstance(verdict, tuple) for verdict in self.together(new))
        return [call.run_id for call in new]

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(connect(self.access)) as other, other.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def writer(new_database: Callable[[], DatabaseAccess]) -> Iterator[Writer]:
    writer = Writer(new_database())
    yield writer
    writer.commit.close()
    writer.connection.close()


def param(run_id: str, key: str, value: str) -> RunWrite:
    call = RunWrite(run_id)
    call.params[key] = value
    return call


def test_calls_that_wait_together_share_one_commit(writer: Writer) -> None:
    runs = writer.new_runs(10)
    before = writer.query("SELECT txid_current()")[0][0]
    verdicts = writer.together([param(run, "p", "1") for run in runs])
    assert all(isinstance(verdict, tuple) for verdict in verdicts)
    assert max(writer.groups[-2:]) == 10
    # The first call's commit, the group's, and one for each question here.
    assert writer.query("SELECT txid_current()")[0][0] - before == 3


@pytest.mark.parametrize("trouble", ["nul", "overflow", "unknown run", "conflict"])
def test_of_ten_calls_with_a_bad_one_nine_succeed(writer: Writer, trouble: str) -> None:
    runs = writer.new_runs(10)
    writer.together([param(runs[4], "taken", "before")])
    waiting = [param(run, "p", "1") for run in runs]
    # Past the reader, as if it had a hole: the database is the last line.
    waiting[4] = {
        "nul": param(runs[4], "p", "a\0b"),
        "overflow": param(runs[4], "k" * 300, "1"),
        "unknown run": param("0" * 32, "p", "1"),
        "conflict": param(runs[4], "taken", "after"),
    }[trouble]
    verdicts = writer.together(waiting)
    assert [n for n, verdict in enumerate(verdicts) if verdict is STOCK] == [4]
    written = writer.query("SELECT run_uuid FROM params WHERE key = 'p'")
    assert {row[0] for row in written} == set(runs) - {runs[4]}
    assert writer.query("SELECT value FROM params WHERE key = 'taken'") == [("before",)]


def test_two_values_for_one_param_at_once_are_not_merged(writer: Writer) -> None:
    (run,) = writer.new_runs(1)
    verdicts = writer.together([param(run, "p", value) for value in "1213"])
    assert [verdict is STOCK for verdict in verdicts] == [False, True, False, True]
    assert writer.query("SELECT value FROM params") == [("1",)]


@pytest.mark.parametrize("theirs", ["same", "other"])
def test_a_param_inserted_after_the_snapshot_is_seen(writer: Writer, theirs: str) -> None:
    (run,) = writer.new_runs(1)
    call = param(run, "p", "same")
    call.tags["t"] = "1"
    with contextlib.closing(connect(writer.access)) as other:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute(
                "INSERT INTO params (run_uuid, key, value) VALUES (%s, 'p', %s)", (run, theirs)
            )
            writer.commit.submit("late", call)
            wait_until_blocked(writer)
            other.commit()
    _, verdict = writer.verdicts.get(timeout=20)
    assert (verdict is STOCK) == (theirs == "other")
    assert len(writer.query("SELECT 1 FROM tags WHERE key = 't'")) == (theirs == "same")


def test_two_updates_of_one_run_are_two_statements(writer: Writer) -> None:
    (run,) = writer.new_runs(1)
    updates = [
        calls.read_update(f'{{"run_id": "{run}", "run_name": "{n}"}}'.encode()) for n in range(3)
    ]
    verdicts = writer.together([call for call in updates if call is not None])
    assert [verdict[3] for verdict in verdicts if isinstance(verdict, tuple)] == ["0", "1", "2"]
    assert writer.query("SELECT name FROM runs WHERE run_uuid = %s", run) == [("2",)]
    assert writer.query("SELECT value FROM tags WHERE run_uuid = %s", run) == [("2",)]


def test_a_cut_connection_costs_no_call(writer: Writer) -> None:
    (run,) = writer.new_runs(1)
    with contextlib.closing(connect(writer.access)) as other:
        other.autocommit = False
        with other.cursor() as cursor:
            cursor.execute("SELECT FROM runs WHERE run_uuid = %s FOR UPDATE", (run,))
            call = param(run, "p", "1")
            writer.commit.submit("cut", call)
            pid = wait_until_blocked(writer)
            writer.query("SELECT pg_terminate_backend(%s)", pid)
            time.sleep(0.1)
            other.rollback()
    _, verdict = writer.verdicts.get(timeout=20)
    assert isinstance(verdict, tuple)
    assert writer.query("SELECT value FROM params") == [("1",)]


def test_without_postgres_a_call_is_told_to_come_again(writer: Writer) -> None:
    nowhere = DatabaseAccess("127.0.0.1", 1, "no", "no", "no")
    writer.connection.configure(nowhere, idle_s=5, wait_s=0.3)
    writer.commit.submit("away", param("0" * 32, "p", "1"))
    _, verdict = writer.verdicts.get(timeout=10)
    assert isinstance(verdict, Away)


def test_closing_carries_out_what_waits_and_leaves_no_thread(writer: Writer) -> None:
    runs = writer.new_runs(5)
    for run in runs:
        writer.commit.submit(run, param(run, "p", "1"))
    writer.commit.close()
    writer.connection.close()
    assert len(writer.query("SELECT 1 FROM params")) == 5
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"group-commit", "connection-watch"}


def wait_until_blocked(writer: Writer) -> int:
    """Wait until a statement of the store waits for a lock; return its server process."""
    text = (
        "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
        "AND datname = current_database()"
    )
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if rows := writer.query(text):
            pid: int = rows[0][0]
            return pid
        time.sleep(0.01)
    raise AssertionError("no statement waits for a lock")
