"""Decide when a user means to send its calls, whatever the server does.

Pure: the clock is an argument. Latency is counted from the intended start, not from the moment
the user was free again: a server that stalls for 10 s makes every call that was due meanwhile
late, and each of them says so. Waiting for the answer before the clock for the next wait starts,
as load generators usually do, lets a stalled server send fewer calls to be measured
(https://groups.google.com/g/mechanical-sympathy/c/icNZJejUHfE, "coordinated omission").
"""

import random
from typing import Protocol

from mlfleet.load.trace import Trace

SPREAD = 0.5
"""A wait is anything from half the mean to one and a half: users do not march in step."""


class Pace(Protocol):
    """The intended starts of one user's calls."""

    def paced(self, now: float) -> float | None:
        """Return the intended start of the next call that the user thinks about first.

        None: there is none any more.
        """

    def chained(self, now: float) -> float | None:
        """Return the intended start of a call that follows an answer without a thought."""


class Thinking:
    """A person or a training loop: a wait between one intended start and the next."""

    def __init__(self, start: float, mean_s: float, draw: random.Random) -> None:
        """Begin somewhere inside the first wait, so that users who arrive together spread."""
        self._mean_s = mean_s
        self._draw = draw
        self._next = start + draw.uniform(0, mean_s)

    def paced(self, now: float) -> float:
        intended = self._next
        self._next += self._mean_s * self._draw.uniform(1 - SPREAD, 1 + SPREAD)
        return intended

    def chained(self, now: float) -> float:
        """It cannot begin before the answer it needs, and that one's wait is counted there."""
        return now


class Slots:
    """Calls at the times of a trace, dealt out among its users in turn.

    Args:
        start: when the trace begins.
        user: this user's number, from 0.
        users: how many share the trace.
    """

    def __init__(self, start: float, trace: Trace, user: int, users: int, seed: int) -> None:
        self._start, self._trace, self._users, self._seed = start, trace, users, seed
        self._call = user

    def paced(self, now: float) -> float | None:
        jitter = random.Random(f"{self._seed} call {self._call}").random()
        at = self._trace.time_of(self._call + jitter)
        self._call += self._users
        return None if at is None else self._start + at

    def chained(self, now: float) -> float | None:
        """Every call of a trace is one of its slots, or its rate would not be the trace's."""
        return self.paced(now)


class Once:
    """One call inside a window of time, and no other: a wake storm."""

    def __init__(self, start: float, window_s: float, draw: random.Random) -> None:
        self._next: float | None = start + draw.uniform(0, window_s)

    def paced(self, now: float) -> float | None:
        intended, self._next = self._next, None
        return intended

    chained = paced
