"""Carry out hot calls on the one connection; those that wait together share one commit.

One thread takes all calls that wait, sends one statement per kind of call on an autocommit
connection (so statement and commit are one round trip), and hands each call its own verdict. While
Postgres works, the event loop reads the next calls: the group grows by itself under load and is a
single call without it. A thread, and not the event loop itself: stock code may wait for the
connection on the event loop, so whoever holds the connection must not need the loop to let go.

Verdicts: the row of the answer (done and committed), `STOCK` (nothing was changed; let stock answer
it), or an `Away` (Postgres is not there; the client shall try again). When a statement fails, its
calls are tried one by one, so a bad call takes none of its neighbours along. When the connection
breaks, whether the commit happened is unknown, and the same calls are sent again: each is written
so that a second time changes nothing.
"""

import collections
import contextlib
import dataclasses
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

import psycopg2

from mlfleet.errors import DatabaseAwayError
from mlfleet.store import statements
from mlfleet.store.calls import Call, CreateRun, RunWrite, UpdateRun
from mlfleet.store.connection import StoreConnection

log = logging.getLogger(__name__)

MOST_CALLS = 128
"""Calls in one group: more save nothing, and a failed statement is repeated call by call."""
_PASSING = ("22012", "40001", "40P01")
"""Failures that a new snapshot can mend: `statements`' own alarm (a division by zero, when another
replica was quicker), serialization failure, deadlock."""


@dataclasses.dataclass(frozen=True)
class Away:
    """The verdict on a call that Postgres was not there for."""

    message: str


class Stock:
    """The verdict "nothing was changed, stock shall answer"; only `STOCK` is ever made."""


STOCK = Stock()
Verdict = tuple[Any, ...] | Away | Stock
Done = Callable[[Sequence[tuple[Any, Verdict]]], None]
"""Takes pairs of the token given to `submit` and its call's verdict, on the writer's thread."""

_Waiting = tuple[Any, Call]


class GroupCommit:
    """The writer thread and its queue."""

    def __init__(self, connection: StoreConnection, done: Done) -> None:
        self._connection = connection
        self._done = done
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._deferred: list[_Waiting] = []
        self._thread: threading.Thread | None = None

    def submit(self, token: Any, call: Call) -> None:
        """Queue a call; its verdict reaches `done` with the token. One thread may submit."""
        if self._thread is None:
            # Not before the first call: the zygote must have no thread when it forks.
            self._thread = threading.Thread(target=self._run, name="group-commit", daemon=True)
            self._thread.start()
        self._queue.put((token, call))

    def close(self) -> None:
        """Carry out what is queued, then end the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            waiting = self._take()
            if waiting is None:
                return
            for group in self._groups(waiting):
                try:
                    verdicts = self._carry_out(group)
                except Exception:
                    # A bug here must cost speed, not answers: without this thread all would hang.
                    log.exception("hot_write_bug")
                    verdicts = [(token, STOCK) for token, _ in group]
                self._done(verdicts)

    def _take(self) -> list[_Waiting] | None:
        """Wait for a call and return it with all that wait behind it; None is the end."""
        waiting, self._deferred = self._deferred, []
        if not waiting:
            first = self._queue.get()
            if first is None:
                return None
            waiting.append(first)
        with contextlib.suppress(queue.Empty):
            while len(waiting) < MOST_CALLS:
                following = self._queue.get_nowait()
                if following is None:
                    self._queue.put(None)
                    break
                waiting.append(following)
        return waiting

    def _groups(self, waiting: list[_Waiting]) -> list[list[_Waiting]]:
        """Part calls by kind; one that contradicts an earlier one waits for the next round."""
        groups: dict[type, list[_Waiting]] = collections.defaultdict(list)
        updated: set[str] = set()
        params: dict[tuple[str, str], str] = {}
        for item in waiting:
            call = item[1]
            if isinstance(call, UpdateRun):
                if call.run_id in updated:
                    self._deferred.append(item)
                    continue
                updated.add(call.run_id)
            elif isinstance(call, RunWrite) and call.params:
                own = {(call.run_id, key): value for key, value in call.params.items()}
                if any(params.get(key, value) != value for key, value in own.items()):
                    self._deferred.append(item)
                    continue
                params.update(own)
            groups[type(call)].append(item)
        return list(groups.values())

    def _carry_out(self, group: list[_Waiting], is_last: bool = False) -> list[tuple[Any, Verdict]]:
        """Return the verdicts of one group of one kind; a call alone is tried at most twice."""
        calls = [call for _, call in group]
        try:
            rows = self._execute(calls)
        except DatabaseAwayError as exc:
            return [(token, Away(str(exc))) for token, _ in group]
        except (psycopg2.Error, ValueError) as exc:  # psycopg2 says ValueError to a NUL character
            sqlstate = getattr(exc, "pgcode", None)
            log.info("hot_statement_failed", extra={"calls": len(group), "sqlstate": sqlstate})
            if len(group) == 1 and (is_last or sqlstate not in _PASSING):
                return [(group[0][0], STOCK)]
            return [pair for item in group for pair in self._carry_out([item], len(group) == 1)]
        return [(token, rows.get(n, STOCK)) for n, (token, _) in enumerate(group, 1)]

    def _execute(self, calls: list[Any]) -> dict[int, tuple[Any, ...]]:
        """Return the answered rows by number of call."""
        text, values = _statement(calls)
        return {row[0]: row for row in self._connection.execute(text, values, may_repeat=True)}


def _statement(calls: list[Any]) -> statements.Statement:
    if isinstance(calls[0], CreateRun):
        return statements.create_statement(calls)
    if isinstance(calls[0], UpdateRun):
        return statements.update_statement(calls)
    return statements.write_statement(calls)
