"""What the users of one process were promised: a file that only grows, one line per request.

A line is a JSON list, the tenant first, so that a reader can sort lines by tenant without parsing:

    ["load-0001", "log", 200, 1764234000.125, null, 0, ["<run id>", "<run name>", ["loss"], 0, 9]]
     tenant       kind   status  sent at      made  resent  the entry without its tenant

Each line is handed to the kernel as it is settled (about 1.5 us), so a process that is killed loses
none of them; the requests in flight are written as unknown when the ledger is closed, and a last
line `["", "end"]` says that it was.
"""

import atexit
import contextlib
import itertools
import json
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from mlfleet.load.entries import KINDS, Entry

UNKNOWN = 0
"""The status of a request that nobody answered."""
_NAMES = {entry: kind for kind, entry in KINDS.items()}
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_number = itertools.count()


class Claim:
    """One request in flight. Left without `settle`, its outcome is unknown."""

    __slots__ = ("_began_s", "_entry", "_ledger")

    def __init__(self, ledger: "Ledger", entry: Entry) -> None:
        self._ledger = ledger
        self._entry = entry
        self._began_s = time.time()

    def settle(self, status: int, made: str | None = None, resent: int = 0) -> None:
        """Say how the request ended.

        Args:
            status: of HTTP; 0 when there was no answer.
            made: what a create was told: a run's or experiment's id, a version's number.
            resent: how often the client itself sent it again before that answer.
        """
        if self in self._ledger.open:
            self._ledger.open.remove(self)
            self._ledger.write(self._entry, status, self._began_s, made, resent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.settle(UNKNOWN)


class Ledger:
    """The ledger of this process; make it after the fork, one per process.

    Args:
        folder: of the load run.
        load: its id, the eight hexadecimal digits that its run names begin with.
    """

    def __init__(self, folder: Path, load: str) -> None:
        self.load = load
        # Named by the machine, too: the pods of a run have the same pids.
        process = f"{socket.gethostname()}-{os.getpid()}"
        self.path = folder / f"accounts-{process}-{next(_number)}.jsonl"
        self.open: set[Claim] = set()
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        atexit.register(self.close)

    def claim(self, entry: Entry) -> Claim:
        """Note that a request is about to be sent; use it as a context.

        Raises:
            ValueError: the ledger is closed, so nobody would know of the request.
        """
        if self._file < 0:
            raise ValueError(f"{self.path} is closed")
        claim = Claim(self, entry)
        self.open.add(claim)
        return claim

    def write(
        self, entry: Entry, status: int, began_s: float, made: str | None, resent: int
    ) -> None:
        """Append one line."""
        kind = _NAMES[type(entry)]
        line = (entry[0], kind, status, round(began_s, 3), made, resent, entry[1:])
        os.write(self._file, f"{_encode(line)}\n".encode())

    def close(self) -> None:
        """Write what is in flight as unknown, and that this is all; again is harmless."""
        atexit.unregister(self.close)
        if self._file < 0:
            return
        for claim in list(self.open):
            claim.settle(UNKNOWN)
        os.write(self._file, f"{_encode(('', 'end'))}\n".encode())
        with contextlib.suppress(OSError):
            os.close(self._file)
        self._file = -1


class Line(NamedTuple):
    """One settled request."""

    status: int
    made: str | None
    resent: int
    entry: Entry


class Books(NamedTuple):
    """All ledgers of a load run, sorted by tenant and not parsed yet."""

    lines: dict[str, list[bytes]]
    """In the order in which each process settled them."""
    files: int
    unfinished: list[str]
    """Ledgers without a last line: their process was killed, so requests in flight may be lost."""


def read(folder: Path) -> Books:
    """Return the ledgers of a load run.

    Raises:
        OSError: one cannot be read.
    """
    books = Books({}, len(paths := sorted(folder.glob("accounts-*.jsonl"))), [])
    for path in paths:
        ended = False
        with path.open("rb") as file:
            for raw in file:
                tenant = raw.split(b'"', 2)[1]
                if not tenant:
                    ended = True
                elif raw.endswith(b"\n"):
                    books.lines.setdefault(tenant.decode(), []).append(raw)
        if not ended:
            books.unfinished.append(path.name)
    return books


def parse(lines: Iterable[bytes]) -> Iterable[Line]:
    """Return the lines of a tenant, parsed."""
    for raw in lines:
        tenant, kind, status, _, made, resent, fields = json.loads(raw)
        yield Line(status, made, resent, KINDS[kind]._make((tenant, *map(_frozen, fields))))


def _frozen(value: object) -> object:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
