"""What was answered in each second: kept by the processes of a load run, read by its report.

One line of `requests-<process>.jsonl` per second, request name and warmth; one of users per second
and process (named by its machine, too: pods of one run have the same pids). Lines of one second
add up, whoever wrote them and in which order. Latencies count from the intended start, so a stalled
server shows as slow answers and not as missing ones.
"""

import contextlib
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from mlfleet.load.histogram import Histogram, bucket

Line = dict[str, Any]
Key = tuple[int, str, bool]
PATTERN = "requests-*.jsonl"


class _Cell:
    """One second of one request name, warm or cold."""

    __slots__ = ("counts", "errors", "longest_s", "n", "wakes")

    def __init__(self) -> None:
        self.n = 0
        self.longest_s = 0.0
        self.counts: dict[int, int] = {}
        self.errors: dict[int, int] = {}
        self.wakes: dict[int, int] = {}

    def line(self, key: Key) -> Line:
        second, name, warm = key
        line: Line = {"t": second, "name": name, "warm": warm, "n": self.n}
        line |= {"errors": self.errors, "h": self.counts, "max": round(self.longest_s, 6)}
        return line | ({"w": self.wakes} if self.wakes else {})


class Recorder:
    """Collects answers in memory, and appends each second that is over to a file.

    `add` takes some microseconds and never waits; `flush` is for a greenlet of its own. Not for
    several threads.
    """

    def __init__(self, folder: Path | None) -> None:
        """Start without an answer.

        Args:
            folder: of the run; None: lines are only given to subscribers (a worker elsewhere).
        """
        self._folder = folder
        self._file: TextIO | None = None
        self._cells: dict[Key, _Cell] = {}
        self._users: dict[int, tuple[int, int]] = {}
        self._takers: list[Callable[[list[Line]], None]] = []

    def begin(self, folder: Path | None) -> None:
        """Write into the folder of another run from now on."""
        self.close()
        self._folder = folder

    def subscribe(self, take: Callable[[list[Line]], None]) -> None:
        """Let somebody have the lines of each flush, too."""
        self._takers.append(take)

    def add(
        self,
        name: str,
        warm: bool,
        status: int,
        latency_s: float,
        now: float,
        wake_s: float | None = None,
    ) -> None:
        """Count one try that ended.

        Args:
            name: of the request, as the report's table shows it.
            warm: the instance was awake: the answer did not wait for a wake.
            status: of HTTP; 0 without an answer.
            latency_s: from the intended start to the answer.
            now: of the answer, `time.time()`.
            wake_s: how long the gateway says the request waited for the wake.
        """
        key = (int(now), name, warm)
        if (cell := self._cells.get(key)) is None:
            cell = self._cells[key] = _Cell()
        cell.n += 1
        number = bucket(latency_s)
        cell.counts[number] = cell.counts.get(number, 0) + 1
        if latency_s > cell.longest_s:
            cell.longest_s = latency_s
        if not 200 <= status < 400:
            cell.errors[status] = cell.errors.get(status, 0) + 1
        if wake_s is not None:
            number = bucket(wake_s)
            cell.wakes[number] = cell.wakes.get(number, 0) + 1

    def populate(self, users: int, intended: int, now: float) -> None:
        """Note what the second that has just ended had; call it at the beginning of each.

        Args:
            users: of this process, now.
            intended: requests that they meant to start since the last call.
            now: `time.time()`.
        """
        second = int(now) - 1
        self._users[second] = (users, self._users.get(second, (0, 0))[1] + intended)

    def flush(self, now: float) -> None:
        """Write the seconds that are over."""
        self._write(int(now))

    def close(self) -> None:
        """Write what is left and close the file."""
        self._write(None)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, until: int | None) -> None:
        over = [key for key in self._cells if until is None or key[0] < until]
        lines = [self._cells.pop(key).line(key) for key in over]
        seconds = [second for second in self._users if until is None or second < until]
        for second in seconds:
            users, intended = self._users.pop(second)
            lines.append({"t": second, "process": _process(), "users": users, "intended": intended})
        if not lines:
            return
        if self._folder is not None:
            self._append(self._folder, lines)
        if self._takers:
            # As a reader of the file would have them: keys of JSON are texts.
            lines = json.loads(json.dumps(lines))
        for take in self._takers:
            take(lines)

    def _append(self, folder: Path, lines: list[Line]) -> None:
        if self._file is None:
            # Opened late, so that a process that forked after making the recorder has its own.
            self._file = (folder / f"requests-{_process()}.jsonl").open("a")
        self._file.write("".join(json.dumps(line) + "\n" for line in lines))
        self._file.flush()


def _process() -> str:
    return f"{os.uname().nodename}-{os.getpid()}"


@dataclasses.dataclass
class Tally:
    """What was answered: in a second, of a name, or in all, depending on who asks."""

    n: int = 0
    latencies: Histogram = dataclasses.field(default_factory=Histogram)
    longest_s: float = 0.0
    errors: Counter[int] = dataclasses.field(default_factory=Counter)
    wakes: Histogram = dataclasses.field(default_factory=Histogram)

    def add_line(self, line: Line) -> None:
        """Count what one line counted."""
        self.n += line["n"]
        self.latencies.counts.update(Histogram.from_json(line["h"]).counts)
        self.longest_s = max(self.longest_s, line["max"])
        self.errors.update({int(status): count for status, count in line["errors"].items()})
        self.wakes.counts.update(Histogram.from_json(line.get("w", {})).counts)

    def add(self, other: "Tally") -> None:
        """Count what another one counted."""
        self.n += other.n
        self.latencies.merge(other.latencies)
        self.longest_s = max(self.longest_s, other.longest_s)
        self.errors.update(other.errors)
        self.wakes.merge(other.wakes)


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return one that counted what all of them counted."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total


def read_lines(folder: Path, pattern: str = PATTERN) -> Iterator[Line]:
    """Yield the lines of all files of a name; the last one of a killed process may be cut off."""
    for path in sorted(folder.glob(pattern)):
        with path.open() as file:
            for text in file:
                with contextlib.suppress(ValueError):
                    yield json.loads(text)


def read(folder: Path) -> tuple[dict[Key, Tally], list[Line]]:
    """Return the tallies of a run by second, name and warmth, and the lines of users."""
    tallies: dict[Key, Tally] = {}
    users = []
    for line in read_lines(folder):
        if "name" in line:
            key = (line["t"], line["name"], line["warm"])
            tallies.setdefault(key, Tally()).add_line(line)
        else:
            users.append(line)
    return tallies, users
