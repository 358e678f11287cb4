"""Traces of load: calls per second over time, from a CSV file.

The file has the columns `t_s,rate`; between two of its points the rate is a straight line. Pure:
reading and writing files is the caller's part.
"""

import bisect
import csv
import dataclasses
import io
import itertools
import math

from mlfleet.errors import FleetError

HEADER = ["t_s", "rate"]


@dataclasses.dataclass(frozen=True)
class Trace:
    """A line of rates; made by `trace_of` or `burst`, which check it."""

    times: tuple[float, ...]
    rates: tuple[float, ...]
    totals: tuple[float, ...]
    """Calls until each point."""

    @property
    def length_s(self) -> float:
        """When the last point is."""
        return self.times[-1]

    @property
    def calls(self) -> float:
        """How many calls the whole trace has."""
        return self.totals[-1]

    @property
    def peak(self) -> float:
        """The highest rate."""
        return max(self.rates)

    def rate(self, t: float) -> float:
        """Return calls per second at a time; 0 outside the trace."""
        if not 0 <= t <= self.length_s:
            return 0.0
        i = max(1, bisect.bisect_left(self.times, t))
        share = (t - self.times[i - 1]) / (self.times[i] - self.times[i - 1])
        return self.rates[i - 1] + share * (self.rates[i] - self.rates[i - 1])

    def time_of(self, call: float) -> float | None:
        """Return when the trace has seen that many calls, or None if it never does."""
        if not 0 <= call < self.calls:
            return None
        i = bisect.bisect_right(self.totals, call)
        missing = call - self.totals[i - 1]
        length = self.times[i] - self.times[i - 1]
        slope = (self.rates[i] - self.rates[i - 1]) / length
        # rate * x + slope / 2 * x² = missing, solved in the form that is exact for slope 0.
        rate = self.rates[i - 1]
        root = math.sqrt(max(0.0, rate * rate + 2 * slope * missing))
        step = 2 * missing / (rate + root) if rate + root else 0.0
        return self.times[i - 1] + min(step, length)


def _trace(points: list[tuple[float, float]]) -> Trace:
    times, rates = zip(*points, strict=True)
    pieces = (
        (t1 - t0) * (r0 + r1) / 2 for (t0, r0), (t1, r1) in itertools.pairwise(points)
    )  # fmt: skip
    return Trace(times, rates, tuple(itertools.accumulate(pieces, initial=0.0)))


def trace_of(text: str, name: str) -> Trace:
    """Read a trace from the text of a CSV file.

    Raises:
        FleetError: it is none; the message names file, line and remedy.
    """
    rows = list(csv.reader(io.StringIO(text)))
    if not rows or [cell.strip() for cell in rows[0]] != HEADER:
        raise FleetError(f"{name} line 1: a trace begins with the line {','.join(HEADER)}")
    points: list[tuple[float, float]] = []
    for number, row in enumerate(rows[1:], start=2):
        if row:
            points.append(_point(row, points, f"{name} line {number}"))
    if len(points) < 2:
        raise FleetError(f"{name}: a trace needs at least two points")
    trace = _trace(points)
    if trace.calls < 1:
        raise FleetError(f"{name}: a trace needs a rate above 0 somewhere; this one has no call")
    return trace


def _point(row: list[str], before: list[tuple[float, float]], where: str) -> tuple[float, float]:
    try:
        t, rate = (float(cell) for cell in row)
    except ValueError:
        raise FleetError(f"{where}: {','.join(row)!r} is not two numbers, time and rate") from None
    if not (math.isfinite(t) and math.isfinite(rate)) or rate < 0:
        raise FleetError(f"{where}: time and rate must be finite and the rate not below 0")
    if not before and t != 0:
        raise FleetError(f"{where}: the first time must be 0, not {t:g}")
    if before and t <= before[-1][0]:
        raise FleetError(f"{where}: time {t:g} is not after {before[-1][0]:g}")
    return t, rate


def burst(
    low: float = 7.0,
    high: float = 35.0,
    *,
    calm_s: float = 180.0,
    jump_s: float = 5.0,
    hold_s: float = 180.0,
    fall_s: float = 240.0,
) -> Trace:
    """Return a low plateau, a jump within seconds, a high plateau and a slow fall.

    The defaults are what tracking servers were seen to get when a team's scheduled trainings
    begin: near 7 calls a second, then 35 for about 3 minutes.
    """
    if not (0 <= low <= high and high > 0 and min(calm_s, jump_s, hold_s, fall_s) > 0):
        raise FleetError("a burst needs 0 <= low <= high, high above 0 and all times above 0")
    lengths = itertools.accumulate((calm_s, jump_s, hold_s, fall_s), initial=0.0)
    return _trace(list(zip(lengths, (low, low, high, high, low), strict=True)))


def csv_of(trace: Trace) -> str:
    """Return the trace as the text of a file that `trace_of` reads."""
    lines = [",".join(HEADER)]
    lines += [f"{t!r},{rate!r}" for t, rate in zip(trace.times, trace.rates, strict=True)]
    return "\n".join(lines) + "\n"
