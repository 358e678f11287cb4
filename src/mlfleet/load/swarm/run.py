"""The run as one process of Locust knows it: its folder, its servers, its ledger, its recorder."""

import dataclasses
import itertools
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

from mlfleet.load.ledger import Ledger
from mlfleet.load.pacing import Once, Pace, Slots, Thinking
from mlfleet.load.population import Population
from mlfleet.load.requests import Recorder
from mlfleet.load.shapes import STORM_WINDOW_S
from mlfleet.load.targets import Target
from mlfleet.load.trace import Trace

_OFFSET_S = time.time() - time.monotonic()


def clock() -> float:
    """Return Unix time that never jumps: latencies are differences of it."""
    return time.monotonic() + _OFFSET_S


@dataclasses.dataclass
class Run:
    """What the users of one process share during one run."""

    load: str
    """Its id."""
    folder: Path
    targets: list[Target]
    ledger: Ledger
    recorder: Recorder
    shape: str
    seed: int
    users: int
    think_s: float
    begins_s: float
    """Start of a trace or a storm, in Unix seconds."""
    worker: int = 0
    workers: int = 1
    trace: Trace | None = None
    checkpoint_bytes: int = 16 << 20
    intended: int = 0
    """Starts whose time has come since this was last asked."""
    _users: Iterator[int] = dataclasses.field(default_factory=itertools.count)
    _sessions: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.population = Population(len(self.targets), self.seed)

    def new_user(self) -> int:
        """Return the number of a new user, unique among all processes of the run."""
        return next(self._users) * self.workers + self.worker

    def target(self, user: int) -> Target:
        """Return the server that a user works with from now on."""
        if self.shape == "diurnal":
            turn = next(self._sessions) * self.workers + self.worker
            return self.targets[self.population.visited(turn)]
        if self.shape == "storm":
            return self.targets[user % len(self.targets)]
        return self.targets[self.population.tenant(user)]

    def pace(self, user: int, mean_s: float | None = None) -> Pace:
        """Return when a user means to make its calls."""
        draw = random.Random(f"{self.seed} pace {user}")
        if self.trace is not None:
            return Slots(self.begins_s, self.trace, user, self.users, self.seed)
        if self.shape == "storm":
            return Once(self.begins_s, STORM_WINDOW_S, draw)
        return Thinking(clock(), self.think_s if mean_s is None else mean_s, draw)

    def note(self, kind: str, detail: str) -> None:
        """Append a line to the events of the run."""
        note(self.folder, kind, detail)

    def close(self) -> None:
        """Write what is still in memory."""
        self.ledger.close()
        self.recorder.close()


def note(folder: Path, kind: str, detail: str) -> None:
    """Append a line to events.jsonl, whole even when several processes do so."""
    line = json.dumps({"t": round(time.time(), 3), "kind": kind, "detail": detail}) + "\n"
    file = os.open(folder / "events.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
