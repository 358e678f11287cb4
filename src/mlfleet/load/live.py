"""The last minutes of a run while it runs: one line for the terminal, one document for a page.

Fed with the lines that recorders flush: of this process, or of its workers, whose reports come some
seconds late. So "now" is the last `WINDOW_S` seconds that anybody told of.
"""

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlfleet.load import resources, units
from mlfleet.load.figures import limits as limits_of
from mlfleet.load.requests import Line, Tally, merged
from mlfleet.load.timeline import growth

WINDOW_S = 5
SILENT_S = 6
KEPT_S = 600
"""What a page can show."""
POINT_S = 2
"""Between two points of a page's charts."""


class Live:
    """What is known of the run now."""

    def __init__(self, lag_s: int = 0) -> None:
        """Start without a run.

        Args:
            lag_s: newest seconds that not everybody has told of yet.
        """
        self._lag_s = lag_s
        self.begin(None, {})

    def begin(self, folder: Path | None, limits: dict[str, float | None]) -> None:
        """Forget the last run.

        Args:
            folder: where the sampler writes; None: nobody samples.
            limits: as in run.json: "p99_s" and "errors".
        """
        self._folder, self._limits = folder, limits
        self._seconds: dict[int, dict[bool, Tally]] = {}
        self._newest = 0
        """Second that was told of last; users are told of also when nothing is answered."""
        self._users: dict[str, int] = {}
        self._total = {True: Tally(), False: Tally()}
        self._points: deque[dict[str, Any]] = deque(maxlen=KEPT_S // POINT_S)
        self._sample: dict[str, Any] = {}

    def take(self, lines: Iterable[Line]) -> None:
        """Take lines that were flushed."""
        for line in lines:
            self._newest = max(self._newest, line["t"])
            if "name" not in line:
                self._users[line["process"]] = line["users"]
                continue
            second = self._seconds.setdefault(line["t"], {True: Tally(), False: Tally()})
            second[line["warm"]].add_line(line)
            self._total[line["warm"]].add_line(line)
        for old in [at for at in self._seconds if at < self._newest - 4 * WINDOW_S]:
            del self._seconds[old]

    def line(self, now: float) -> str:
        """Return one line: users, rate, latencies, failures, awake, limits that are exceeded.

        Args:
            now: Unix seconds, to say when nobody tells anything any more.
        """
        if not self._newest:
            return "no answer yet"
        age_s = now - self._newest - self._lag_s
        told = [f"nothing heard for {age_s:.0f} s"] if age_s > SILENT_S else []
        return "  ".join([*self._parts(), *told, *(f"MISSED {r['what']}" for r in self._missed())])

    def _parts(self) -> list[str]:
        now = self._now()
        warm, cold = now[True], now[False]
        sample = (self._recent() or [{}])[-1]
        parts = [
            f"{units.count(sum(self._users.values()))} users",
            units.rate((warm.n + cold.n) / WINDOW_S),
            f"warm p50 {units.latency(warm.latencies.percentile(0.5))}"
            f" p99 {units.latency(warm.latencies.percentile(0.99))}",
            f"cold p99 {units.latency(cold.latencies.percentile(0.99))}",
            f"failed {units.count(self._failed())}",
        ]
        if "awake" in sample:
            parts.append(f"awake {units.count(sample['awake'])}")
        if "machine" in sample:
            parts.append(f"CPU {units.share(sample['machine']['busy'])}")
        return parts

    def _missed(self) -> list[dict[str, Any]]:
        total = merged(self._total.values())
        document = {
            "run": {"limits": self._limits},
            "requests": {
                "n": total.n,
                "failed": total.errors.total(),
                "warm": {"p99_s": self._total[True].latencies.percentile(0.99)},
            },
            "accounts": None,
        }
        return [row for row in limits_of(document) if not row["is_kept"]] if total.n else []

    def _failed(self) -> int:
        return sum(tally.errors.total() for tally in self._total.values())

    def _now(self) -> dict[bool, Tally]:
        end = self._newest - self._lag_s
        seconds = [second for second in self._seconds if end - WINDOW_S < second <= end]
        return {warm: merged(self._seconds[at][warm] for at in seconds) for warm in (True, False)}

    def _recent(self) -> list[dict[str, Any]]:
        return resources.recent(self._folder) if self._folder else []

    def point(self) -> dict[str, Any]:
        """Note how it is now, for a page; call each `POINT_S` seconds. Return what was noted."""
        now, recent, before = self._now(), self._recent() or [{}], self._sample
        warm, cold, sample = now[True], now[False], recent[-1]
        point = {
            "t": sample.get("t"),
            "users": sum(self._users.values()),
            "rate": (warm.n + cold.n) / WINDOW_S,
            "failed": self._failed(),
            "warm_p50_s": warm.latencies.percentile(0.5),
            "warm_p99_s": warm.latencies.percentile(0.99),
            "cold_p50_s": cold.latencies.percentile(0.5),
            "cold_p99_s": cold.latencies.percentile(0.99),
            "awake": sample.get("awake"),
            "held": sample.get("held"),
            "wakes": sample.get("wakes"),
            "connections": sample.get("connections"),
            "busy": sample.get("machine", {}).get("busy"),
            "cpu": _cpu(before, sample),
            "memory": _memory(recent),
        }
        self._sample = sample
        self._points.append(point)
        return point

    def document(self) -> dict[str, Any]:
        """Return what a page shows: points over time, and the limits that are exceeded."""
        return {
            "points": list(self._points),
            "step_s": POINT_S,
            "missed": [row["what"] for row in self._missed()],
        }


def _cpu(before: dict[str, Any], sample: dict[str, Any]) -> dict[str, float]:
    """Return cores by role between two samples."""
    passed = sample.get("t", 0.0) - before.get("t", 0.0)
    if not before or passed <= 0:
        return {}
    old = before["roles"]
    return {
        role: growth(old[role]["cpu_s"], of["cpu_s"]) / passed
        for role, of in sample["roles"].items()
        if role in old
    }


def _memory(recent: list[dict[str, Any]]) -> dict[str, float]:
    """Return the memory by role, which only some lines tell."""
    told: dict[str, float] = {}
    for sample in recent:
        roles = sample.get("roles", {})
        told |= {role: of["pss_bytes"] for role, of in roles.items() if of["pss_bytes"] is not None}
    return told
