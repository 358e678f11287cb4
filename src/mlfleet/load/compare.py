"""Decide how much load a server carries while its p99 stays within a bound, and who carries more.

Pure: what was measured comes in, the next rate to try or a verdict goes out. Users who think do not
fill a quick server, so each side is given ever more of the same users until the same bound is
passed; what is compared is the highest rate that each still answered within it.
"""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

GROWTH = 1.6
"""From one number of users to the next, until a bound is passed."""
EXACT = 1.15
"""Ratio of the fewest users that were too many to the most that were not: then it is known."""
LEAST_USERS, MOST_USERS = 2, 20_000
KEPT_UP = 0.8
"""Share of what users meant to send that must be answered: less, and the queue grows. A few hundred
answers of a short window vary by a tenth; that calls come late is in the p99 already."""
MOST_ERRORS = 0.01
"""Share of answers that may be lost: stock fails now and then at any rate, and would
otherwise seem to carry nothing. The verdict forgives a fleet none."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """A number of users at a server for a while, and what came back."""

    users: int
    offered_per_s: float
    """What they meant to send."""
    answered_per_s: float
    p50_s: float
    p99_s: float
    answers: int
    """In all, errors included."""
    errors: int
    """Answers that were not 2xx, and requests that got none."""
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)

    def is_within(self, p99_s: float) -> bool:
        """Return whether the server kept up, nearly without errors and within the bound."""
        kept_up = self.answered_per_s >= KEPT_UP * self.offered_per_s
        is_sound = self.errors <= MOST_ERRORS * self.answers
        return kept_up and is_sound and self.p99_s <= p99_s


def next_users(probes: Sequence[Probe], first: int, p99_s: float) -> int | None:
    """Return how many users to try next, None when the most that are bearable are known.

    Args:
        probes: what was tried, in any order.
        first: the number to begin with.
        p99_s: the bound.
    """
    if not probes:
        return first
    borne = max((probe.users for probe in probes if probe.is_within(p99_s)), default=None)
    failed = [probe.users for probe in probes if not probe.is_within(p99_s)]
    if borne is None:
        users = math.floor(min(failed) / GROWTH)
        return users if users >= LEAST_USERS else None
    # One bad moment may have failed fewer users than were borne: the higher number counts.
    above = min((users for users in failed if users > borne), default=None)
    if above is None:
        users = math.ceil(borne * GROWTH)
        return users if users <= MOST_USERS else None
    middle = round(math.sqrt(borne * above))
    return None if above <= borne * EXACT or middle in (borne, above) else middle


def best(probes: Sequence[Probe], p99_s: float) -> Probe | None:
    """Return the probe with the highest rate that was borne, none if not one was."""
    borne = [probe for probe in probes if probe.is_within(p99_s)]
    return max(borne, key=lambda probe: probe.answered_per_s, default=None)


@dataclasses.dataclass(frozen=True)
class Side:
    """A server, with its best probe of each turn."""

    name: str
    is_stock: bool
    turns: tuple[Probe, ...]
    missing: int
    """Acknowledged rows that were not in its database, over all turns; -1: not checked."""

    @property
    def rate(self) -> float:
        """Median over the turns of what it answered per second; 0 without a turn."""
        return self.median("answered_per_s") if self.turns else 0.0

    @property
    def errors(self) -> int:
        """Of all turns."""
        return sum(turn.errors for turn in self.turns)

    def median(self, field: str) -> float:
        """Return the median over the turns of a field of theirs, or of one of their figures."""
        values = [getattr(turn, field, turn.figures.get(field, 0.0)) for turn in self.turns]
        return float(statistics.median(values))


def ratio(sides: Sequence[Side]) -> float:
    """Return how many times the better stock side's rate the better fleet side carries."""
    stock = max((side.rate for side in sides if side.is_stock), default=0.0)
    fleet = max((side.rate for side in sides if not side.is_stock), default=0.0)
    return fleet / stock if stock else float("nan")


def is_met(sides: Sequence[Side], times: float) -> bool:
    """Return whether the fleet carries so many times stock's rate, without an error or a loss."""
    fleets = [side for side in sides if not side.is_stock]
    is_sound = all(side.missing == 0 and side.errors == 0 for side in fleets)
    return is_sound and ratio(sides) >= times


HEADER = (
    "side", "requests/s", "p50 ms", "p99 ms", "errors", "missing rows", "CPU ms per request",
    "memory MiB",
)  # fmt: skip


def rows(sides: Sequence[Side]) -> list[list[str]]:
    """Return the lines of the table below `HEADER`; a figure is the median of the turns."""
    return [_row(side) for side in sides]


def _row(side: Side) -> list[str]:
    if not side.turns:
        return [side.name, "no user was borne", *[""] * (len(HEADER) - 2)]
    return [
        side.name,
        f"{side.rate:.0f}",
        f"{1000 * side.median('p50_s'):.0f}",
        f"{1000 * side.median('p99_s'):.0f}",
        str(side.errors),
        "not checked" if side.missing < 0 else str(side.missing),
        f"{side.median('cpu_ms'):.1f}",
        f"{side.median('pss_mib'):.0f}",
    ]


def markdown(sides: Sequence[Side]) -> str:
    """Return the table as Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|---|" + "---:|" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows(sides)]
    return "\n".join(lines)
