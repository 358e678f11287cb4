"""Decide whether a fleet under steady load stays the size it was: memory, descriptors, connections.

Pure: samples come in, verdicts go out. The first minutes are left out, because caches fill and
every tenant wakes then. What is left is judged by its ends: the median of the last minutes may
exceed the median of the first ones by a share. Medians, because a backup, a vacuum or one big
request makes a peak that is gone again; a leak is there at the end.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

SETTLE_S = 600.0
"""Left out at the beginning."""
END_S = 300.0
"""Length of the two ends that are compared; never more than a third of what is left."""
LIMIT = 0.05
"""Share of growth that still counts as flat."""
LEAST_SAMPLES = 6
"""In what is left; with fewer nothing is said."""
LONGEST_GAP_S = 60.0
"""A process without a sample for so long at either end was not there all the time."""

NOT_FLEET = ("locust", "sampler")
"""Roles of the load itself."""

Point = tuple[float, float]
"""Time in seconds on any clock, and a value."""


@dataclasses.dataclass(frozen=True)
class Slack:
    """How much growth is no growth, whatever its share: one descriptor more of ten is no leak."""

    unit: str
    most: float


MEMORY = Slack("bytes", 512 * 1024)
FILES = Slack("descriptors", 2)
CONNECTIONS = Slack("connections", 2)


@dataclasses.dataclass(frozen=True)
class Series:
    """One thing that was sampled over time."""

    name: str
    slack: Slack
    points: tuple[Point, ...]


@dataclasses.dataclass(frozen=True)
class Growth:
    """How much a series grew after it had settled."""

    name: str
    unit: str
    first: float
    last: float
    is_flat: bool

    @property
    def share(self) -> float:
        """Growth as a share of the first value; negative if it shrank."""
        if self.first == 0:
            return 0.0 if self.last == 0 else float("inf")
        return self.last / self.first - 1


def growth(series: Series, settle_s: float = SETTLE_S, limit: float = LIMIT) -> Growth | None:
    """Return how a series grew, None if it is too short to say.

    Args:
        series: its points in order of time.
        settle_s: what is left out, counted from the first point.
        limit: share that counts as flat.
    """
    if not series.points:
        return None
    start = series.points[0][0] + settle_s
    kept = [point for point in series.points if point[0] >= start]
    if len(kept) < LEAST_SAMPLES:
        return None
    end_s = min(END_S, (kept[-1][0] - kept[0][0]) / 3)
    first = statistics.median(v for t, v in kept if t <= kept[0][0] + end_s)
    last = statistics.median(v for t, v in kept if t >= kept[-1][0] - end_s)
    is_flat = last <= first * (1 + limit) or last - first <= series.slack.most
    return Growth(series.name, series.slack.unit, first, last, is_flat)


def of_resources(rows: Iterable[Mapping[str, Any]]) -> list[Series]:
    """Return the series of a run's resources: each role's memory and descriptors, connections.

    Memory and descriptors of a role are per process: how many instances are awake follows the load.
    """
    points: dict[tuple[str, Slack], list[Point]] = {}
    for row in rows:
        now = float(row["t"])
        if (connections := row.get("connections")) is not None:
            points.setdefault(("Postgres connections", CONNECTIONS), []).append((now, connections))
        for role, seen in row.get("roles", {}).items():
            if role in NOT_FLEET or not (count := seen.get("count")):
                continue
            for field, slack in (("pss_bytes", MEMORY), ("fds", FILES)):
                if (value := seen.get(field)) is not None:
                    points.setdefault((role, slack), []).append((now, value / count))
    return [Series(name, slack, tuple(found)) for (name, slack), found in points.items()]


def of_processes(rows: Sequence[Mapping[str, Any]]) -> list[Series]:
    """Return the series of each single process that was there from first to last.

    Args:
        rows: each `{"t", "processes": {"<pid>": {"role", "pss_bytes", "fds"}}}`.
    """
    points: dict[tuple[str, Slack], list[Point]] = {}
    for row in rows:
        now = float(row["t"])
        for pid, seen in row["processes"].items():
            name = f"{seen['role']} {pid}"
            for field, slack in (("pss_bytes", MEMORY), ("fds", FILES)):
                points.setdefault((name, slack), []).append((now, float(seen[field])))
    if not rows:
        return []
    start, end = float(rows[0]["t"]), float(rows[-1]["t"])
    return [
        Series(name, slack, tuple(found))
        for (name, slack), found in points.items()
        if found[0][0] - start <= LONGEST_GAP_S + SETTLE_S and end - found[-1][0] <= LONGEST_GAP_S
    ]


def judge(
    series: Iterable[Series], settle_s: float = SETTLE_S, limit: float = LIMIT
) -> list[Growth]:
    """Return the growth of all series that are long enough, what grew most first."""
    found = (growth(one, settle_s, limit) for one in series)
    return sorted((one for one in found if one), key=lambda one: -one.share)
