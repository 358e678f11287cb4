"""The same users at stock `mlflow server` and at a fleet, in turns, on one Postgres.

Stock runs with its defaults and with one worker (with several it answers nothing sooner than after
40 ms); the fleet has the users spread over tenants, and all on one. A stock server is started for
its turn and stopped after it, so that no side pays for another's idle processes.
"""

import contextlib
import dataclasses
import json
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlfleet.database.connect import connect
from mlfleet.load import compare, stock
from mlfleet.load.compare import Probe, Side
from mlfleet.load.trial import Server, Trial
from mlfleet.runtime import ports
from mlfleet.runtime.folder import DataFolder

FIRST_USERS = 300
SETTLE_S = 8.0
"""After stock's first answer: its job runner's processes are still starting then."""
STOCK_PORTS = range(21700, 21800)
DATABASE = "mlfleet_compare_stock"
DEFAULTS, ONE_WORKER = "stock, defaults", "stock, one worker"
ONE_TENANT = "fleet, 1 tenant"
STOCK_OPTIONS: dict[str, tuple[str, ...]] = {DEFAULTS: (), ONE_WORKER: ("--workers", "1")}


@dataclasses.dataclass(frozen=True)
class Result:
    """What a comparison found."""

    sides: list[Side]
    probes: dict[str, list[list[Probe]]]
    """Of each side, by turn."""

    def document(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {
            "ratio": compare.ratio(self.sides),
            "sides": [dataclasses.asdict(side) for side in self.sides],
            "probes": {
                name: [[dataclasses.asdict(probe) for probe in turn] for turn in turns]
                for name, turns in self.probes.items()
            },
        }


class Comparison:
    """A comparison on the Postgres of a running fleet."""

    def __init__(self, data: Path, trial: Trial, tenants: int) -> None:
        """Find the fleet.

        Args:
            data: its folder.
            trial: how to probe.
            tenants: that the users are spread over.

        Raises:
            NotRunningError: no fleet runs there.
        """
        self._data, self._trial, self._tenants = data.absolute(), trial, tenants
        self._admin_uri = DataFolder(data).read().admin_uri

    def run(self, turns: int, *, is_short: bool = False) -> Result:
        """Measure all sides in turns; a short one leaves out one worker and the single tenant."""
        names = [f"fleet, {self._tenants} tenants"]
        names = (
            [DEFAULTS, *names] if is_short else [DEFAULTS, ONE_WORKER, *names, "fleet, 1 tenant"]
        )
        probes: dict[str, list[list[Probe]]] = {name: [] for name in names}
        with self._stock_database() as uri:
            for _ in range(turns):
                for name in names:
                    probes[name].append(self._turn(name, uri, self._first(probes[name])))
        return Result([self._side(name, found) for name, found in probes.items()], probes)

    def _first(self, turns: list[list[Probe]]) -> int:
        best = compare.best(turns[-1], self._trial.p99_s) if turns else None
        return best.users if best else FIRST_USERS

    def _turn(self, name: str, uri: str, first: int) -> list[Probe]:
        with self._server(name, uri) as server:
            return self._trial.search(server, first)

    @contextlib.contextmanager
    def _server(self, name: str, uri: str) -> Iterator[Server]:
        if name not in STOCK_OPTIONS:
            tenants = "1" if name == ONE_TENANT else str(self._tenants)
            options = ("--data", str(self._data), "--tenants", tenants)
            yield Server(name, False, options, self._data)
            return
        port, claim = ports.reserve(None, STOCK_PORTS)
        folder = self._trial.folder / f"server-{port}"
        with claim, stock.running(uri, folder, port, *STOCK_OPTIONS[name]) as server:
            time.sleep(SETTLE_S)
            targets = folder / "targets.json"
            targets.write_text(json.dumps([_target(server, uri)]))
            yield Server(name, True, ("--targets", str(targets)), self._data, server.pid)

    @contextlib.contextmanager
    def _stock_database(self) -> Iterator[str]:
        """Make stock a database of its own beside the tenants', and drop it at the end."""
        with contextlib.closing(connect(self._admin_uri)) as connection:
            drop = f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"
            with connection.cursor() as cursor:
                cursor.execute(drop)
                cursor.execute(f"CREATE DATABASE {DATABASE}")
            try:
                uri = _of_database(self._admin_uri)
                stock.migrate(uri)
                yield uri
            finally:
                with connection.cursor() as cursor:
                    cursor.execute(drop)

    def _side(self, name: str, turns: list[list[Probe]]) -> Side:
        best = [compare.best(turn, self._trial.p99_s) for turn in turns]
        findings = [probe.figures["findings"] for turn in turns for probe in turn]
        missing = -1 if -1 in findings else sum(findings)
        return Side(name, name in STOCK_OPTIONS, tuple(one for one in best if one), missing)


def _of_database(admin_uri: str) -> str:
    parts = urllib.parse.urlsplit(admin_uri)._replace(path=f"/{DATABASE}", scheme="postgresql")
    return urllib.parse.urlunsplit(parts).replace("postgresql://", "postgresql+psycopg2://", 1)


def _target(server: stock.StockServer, uri: str) -> dict[str, Any]:
    return {
        "tenant": "stock",
        "url": server.url,
        "token": None,
        "database_uri": uri,
        "artifacts": str(server.folder / "mlartifacts"),
    }
