"""Stock servers beside the fleet: how long they take to start, and what they cost while idle."""

import dataclasses
import statistics
import time
from types import TracebackType
from typing import Any

from benchmarks.fleet import Fleet
from load_figures.stage import Stage
from mlfleet.load import processes, stock

SETTLE_S = 25.0
"""After the first answer: the job runner's processes go on starting for a while."""


class Stock:
    """One stock server on a database of its own in the fleet's Postgres."""

    def __init__(self, stage: Stage, fleet: Fleet, number: int) -> None:
        self._database = f"figure_stock_{number}"
        fleet.postgres.create(self._database)
        uri = fleet.postgres.uri(self._database)
        stock.migrate(uri)
        folder = stage.folder / f"stock-{number}"
        self._server = stock.StockServer(uri, folder, stage.port + 20 + number, [])
        self._start_cpu_s = self._cpu_s()

    def __enter__(self) -> "Stock":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def weigh(self, idle_s: float) -> dict[str, Any]:
        """Return what it costs, its idle CPU over so many seconds from now."""
        began, used_s = time.monotonic(), self._cpu_s()
        time.sleep(idle_s)
        passed = time.monotonic() - began
        found = self._server.tree()
        return {
            "start_s": round(self._server.start_s, 2),
            "start_cpu_s": round(self._start_cpu_s, 2),
            "pss_bytes": processes.total_pss_bytes(found),
            "processes": len(found),
            "idle_cores": round((self._cpu_s() - used_s) / passed, 4) if idle_s else None,
        }

    def _cpu_s(self) -> float:
        return sum(process.cpu_s for process in self._server.tree())

    def stop(self) -> None:
        """Stop it."""
        self._server.stop()


@dataclasses.dataclass(frozen=True)
class StockFigures:
    """Medians over the servers that were measured."""

    count: int
    start_s: float
    start_cpu_s: float
    pss_bytes: float
    idle_cores: float
    each: list[dict[str, Any]]


def figures_of(each: list[dict[str, Any]]) -> StockFigures:
    """Return the medians."""

    def median(field: str) -> float:
        return float(statistics.median([one[field] or 0 for one in each]))

    return StockFigures(
        len(each),
        median("start_s"),
        median("start_cpu_s"),
        median("pss_bytes"),
        median("idle_cores"),
        each,
    )
