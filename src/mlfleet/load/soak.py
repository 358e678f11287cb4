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
POSTGRES_FILES = Slack("descriptors", 1000)
"""Each process of Postgres keeps up to max_files_per_process files open, to have them at hand."""
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

    Both are per process: how many instances are awake follows the load. An instance and its zygote
    share memory, and what one stops sharing counts for the other, so they are weighed together.
    Postgres' memory is left out: it fills the buffers that it was given. `of_processes` looks at
    its processes without them.
    """
    points = _Points()
    for row in rows:
        now, roles = float(row["t"]), row.get("roles", {})
        points.add("Postgres connections", CONNECTIONS, now, row.get("connections"))
        for role, seen in roles.items():
            if role in NOT_FLEET or not (count := seen.get("count")):
                continue
            files = POSTGRES_FILES if role == "Postgres" else FILES
            points.add(role, files, now, seen.get("fds"), count)
            if role not in ("Postgres", "zygote", "instance"):
                points.add(role, MEMORY, now, seen.get("pss_bytes"), count)
        family = [roles.get(role, {}) for role in ("zygote", "instance")]
        weights = [seen.get("pss_bytes") for seen in family]
        if None not in weights and family[1]["count"]:
            points.add("instances and zygote", MEMORY, now, sum(weights), family[1]["count"])
    return points.series()


def of_processes(rows: Sequence[Mapping[str, Any]]) -> list[Series]:
    """Return the series of each single process that was there from first to last.

    A zygote's memory is left out (see `of_resources`), and of Postgres' that of its buffers.

    Args:
        rows: each `{"t", "processes": {"<pid>": {"role", "pss_bytes", "shmem_bytes", "fds"}}}`.
    """
    points = _Points()
    for row in rows:
        now = float(row["t"])
        for pid, seen in row["processes"].items():
            role, name = seen["role"], f"{seen['role']} {pid}"
            points.add(name, POSTGRES_FILES if role == "Postgres" else FILES, now, seen["fds"])
            if role != "zygote":
                points.add(name, MEMORY, now, seen["pss_bytes"] - seen["shmem_bytes"])
    if not rows:
        return []
    start, end = float(rows[0]["t"]), float(rows[-1]["t"])
    return [
        one
        for one in points.series()
        if one.points[0][0] - start <= LONGEST_GAP_S + SETTLE_S
        and end - one.points[-1][0] <= LONGEST_GAP_S
    ]


class _Points:
    """Samples by what they are of."""

    def __init__(self) -> None:
        self._of: dict[tuple[str, Slack], list[Point]] = {}

    def add(self, name: str, slack: Slack, now: float, value: float | None, count: int = 1) -> None:
        """Take a sample, per process; None is none."""
        if value is not None:
            self._of.setdefault((name, slack), []).append((now, value / count))

    def series(self) -> list[Series]:
        """Return them."""
        return [Series(name, slack, tuple(found)) for (name, slack), found in self._of.items()]


def judge(
    series: Iterable[Series], settle_s: float = SETTLE_S, limit: float = LIMIT
) -> list[Growth]:
    """Return the growth of all series that are long enough, what grew most first."""
    found = (growth(one, settle_s, limit) for one in series)
    return sorted((one for one in found if one), key=lambda one: -one.share)
