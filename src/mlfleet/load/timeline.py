"""What a run looked like over time, in equal windows: the charts of its report.

Pure. Windows are as long as it takes to have at most `MOST` of them, so that a chart of an hour is
as readable as one of two minutes; percentiles of a window are of all its answers, never means of
percentiles. A window without a value is None, which a chart leaves blank.
"""

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mlfleet.load.requests import Key, Line, Tally, merged

MOST = 240
OLD_S = 15
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)

Values = list[float | None]
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Equal parts of the time of a run."""

    start: int
    """Unix seconds."""
    step_s: int
    count: int

    @classmethod
    def of(cls, start: int, end: int) -> "Windows":
        """Return the shortest windows that are not too many for this time."""
        length = max(1, end - start)
        step_s = next((step for step in _STEPS_S if length / step <= MOST), _STEPS_S[-1])
        return cls(start, step_s, -(-length // step_s))

    def index(self, moment: float) -> int | None:
        """Return the number of the window that a moment is in, None outside."""
        index = int((moment - self.start) // self.step_s)
        return index if 0 <= index < self.count else None

    def overlaps(self, start: float, end: float) -> Iterator[tuple[int, float]]:
        """Yield the windows that some time touches, with the seconds that it has in each."""
        first = max(0, int((start - self.start) // self.step_s))
        last = min(self.count - 1, int((end - self.start) // self.step_s))
        for index in range(first, last + 1):
            begin = self.start + index * self.step_s
            overlap_s = min(end, begin + self.step_s) - max(start, begin)
            if overlap_s > 0:
                yield index, overlap_s

    @property
    def seconds(self) -> list[float]:
        """The middle of each window, since the start."""
        return [(index + 0.5) * self.step_s for index in range(self.count)]


def of_requests(windows: Windows, tallies: Mapping[Key, Tally]) -> dict[str, Any]:
    """Return rate, errors and latencies over time, warm and cold apart."""
    groups: dict[tuple[bool, int], list[Tally]] = defaultdict(list)
    for (second, _, is_warm), tally in tallies.items():
        if (index := windows.index(second)) is not None:
            groups[is_warm, index].append(tally)
    warm, cold = (
        [merged(groups[is_warm, index]) for index in range(windows.count)]
        for is_warm in (True, False)
    )
    both = [merged(pair) for pair in zip(warm, cold, strict=True)]
    statuses = sorted({status for tally in both for status in tally.errors})
    return {
        "rate": [tally.n / windows.step_s for tally in both],
        "errors": {
            str(status): [tally.errors[status] / windows.step_s for tally in both]
            for status in statuses
        },
        **{
            f"{name}_p{percent}_s": [tally.latencies.percentile(percent / 100) for tally in group]
            for name, group in (("warm", warm), ("cold", cold))
            for percent in (50, 99)
        },
        **{f"wake_p{p}_s": [tally.wakes.percentile(p / 100) for tally in both] for p in (50, 99)},
    }


def of_users(windows: Windows, lines: Iterable[Line]) -> dict[str, Values]:
    """Return how many users there were, and how many requests a second they meant to start."""
    users: dict[int, Counter[int]] = defaultdict(Counter)
    intended: Counter[int] = Counter()
    for line in lines:
        if (index := windows.index(line["t"])) is not None:
            # Of one process the most in a window; of several processes the sum.
            users[index][line["process"]] = max(users[index][line["process"]], line["users"])
            intended[index] += line["intended"]
    there = range(windows.count)
    return {
        "users": [users[index].total() if index in users else None for index in there],
        "intended": [intended[i] / windows.step_s if i in users else None for i in there],
    }


def of_resources(windows: Windows, rows: Sequence[Row]) -> dict[str, Any]:
    """Return what the fleet and the machine looked like over time."""
    roles = sorted({role for row in rows for role in row["roles"]})
    return {
        "awake": _last(windows, rows, lambda row: row.get("awake")),
        "held": _most(windows, rows, lambda row: row.get("held")),
        "wakes": _rate(windows, rows, lambda row: row.get("wakes")),
        "busy": _mean(windows, rows, lambda row: row["machine"]["busy"] * row["machine"]["cores"]),
        "connections": {
            whose: _most(windows, rows, _connections_of(whose)) for whose in ("tenants", "fleet")
        },
        "memory": {role: _last(windows, rows, _of_role(role, "pss_bytes")) for role in roles},
        "cpu": {role: _rate(windows, rows, _of_role(role, "cpu_s")) for role in roles},
        "fds": {role: _last(windows, rows, _of_role(role, "fds")) for role in roles},
    }


Value = Callable[[Row], float | None]


def _of_role(role: str, field: str) -> Value:
    return lambda row: row["roles"].get(role, {}).get(field)


def _connections_of(whose: str) -> Value:
    return lambda row: row.get("connections_by", {}).get(whose)


def _grouped(windows: Windows, rows: Iterable[Row], value: Value) -> list[list[float]]:
    groups: list[list[float]] = [[] for _ in windows.seconds]
    for row in rows:
        index, found = windows.index(row["t"]), value(row)
        if index is not None and found is not None:
            groups[index].append(found)
    return groups


def _last(windows: Windows, rows: Iterable[Row], value: Value) -> Values:
    groups = _grouped(windows, rows, value)
    return _carried(windows, [group[-1] if group else None for group in groups])


def _carried(windows: Windows, values: Values) -> Values:
    """Fill the gaps of what is not told in each window; what is older than `OLD_S` is left out."""
    carried, age_s = list(values), 0
    for index, value in enumerate(values):
        age_s = 0 if value is not None else age_s + windows.step_s
        if value is None and index and age_s <= OLD_S:
            carried[index] = carried[index - 1]
    return carried


def _most(windows: Windows, rows: Iterable[Row], value: Value) -> Values:
    groups = _grouped(windows, rows, value)
    return _carried(windows, [max(group) if group else None for group in groups])


def _mean(windows: Windows, rows: Iterable[Row], value: Value) -> Values:
    groups = _grouped(windows, rows, value)
    return _carried(windows, [sum(group) / len(group) if group else None for group in groups])


def _rate(windows: Windows, rows: Iterable[Row], value: Value) -> Values:
    """Return by how much a counter grew per second; what began anew counts from zero.

    Growth is spread evenly over the time between two samples, of which a busy machine makes few.
    """
    grown: dict[int, float] = defaultdict(float)
    covered_s: dict[int, float] = defaultdict(float)
    for (then, before), (now, after) in _pairs(rows, value):
        per_s = growth(before, after) / (now - then) if now > then else 0.0
        for index, overlap_s in windows.overlaps(then, now):
            grown[index] += per_s * overlap_s
            covered_s[index] += overlap_s
    return [grown[i] / covered_s[i] if i in covered_s else None for i in range(windows.count)]


def _pairs(
    rows: Iterable[Row], value: Value
) -> Iterable[tuple[tuple[float, float], tuple[float, float]]]:
    points = [(float(row["t"]), found) for row in rows if (found := value(row)) is not None]
    return itertools.pairwise(points)


def growth(before: float, after: float) -> float:
    """Return how much a counter grew that may have begun anew, as after a restart."""
    return after - before if after >= before else after


def grown(rows: Iterable[Row], value: Value) -> float:
    """Return how much a counter grew in all."""
    return sum(growth(before, after) for (_, before), (_, after) in _pairs(rows, value))
