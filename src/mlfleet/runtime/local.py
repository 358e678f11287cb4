"""A fleet on one machine: bring up Postgres, catalogue, template and cell, keep them, end them.

Order of the start: the cell's imports take longest, so its process starts first and waits for the
database, while this one starts Postgres and makes the catalogue and the template ready. Order of
the end: the cell finishes what is in flight, then Postgres shuts down fast; data are safe at
every moment between.
"""

import dataclasses
import logging
import os
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.database.keys import FleetKey
from mlfleet.errors import AlreadyRunningError
from mlfleet.runtime import connections, ports
from mlfleet.runtime.cell_admin import CellAdmin
from mlfleet.runtime.cell_process import CellProcess
from mlfleet.runtime.folder import DataFolder, FleetFile
from mlfleet.runtime.keeper import Keeper
from mlfleet.settings import Settings

if TYPE_CHECKING:
    from mlfleet.catalogue.models import CreatedTenant

log = logging.getLogger(__name__)

READY_S = 60.0
"""Longest wait for the cell; a cold file cache on a small machine needs some of it."""
POLL_S = 0.1
CELL_END_S = 2.2
"""What the cell may take beyond its drain deadline to leave."""
POSTGRES_STOP_S = 1.2
"""A fast shutdown writes one checkpoint; what is not written by then is replayed at the start."""

Say = Callable[[str], None]


class _Launched:
    """Postgres as its keeper starts it again: without waiting.

    A server that replays its log after a crash may take minutes. Waiting for it would leave a cell
    that ends meanwhile where it is, and stopping it would make it begin again from the start.
    """

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres

    def is_running(self) -> bool:
        """Return whether the process is there."""
        return self._postgres.is_running()

    def start(self) -> None:
        """Start the process."""
        self._postgres.launch()


class LocalFleet:
    """The supervisor of one data folder; hold the folder's lock while using it."""

    def __init__(self, settings: Settings, folder: DataFolder, say: Say) -> None:
        """Plan the fleet; nothing is started yet.

        Args:
            settings: of the whole fleet; `admin_uri` none means the embedded Postgres, and
                `drain_s` is how long the cell may take to finish requests at the end.
            folder: where its data are.
            say: told in a few words what is being done now.
        """
        self._settings = settings
        self._folder = folder
        self._say = say
        self._began = time.monotonic()
        self._postgres: EmbeddedPostgres | None = None
        self._cell: CellProcess | None = None
        self._port_claim: socket.socket | None = None
        self.phases: dict[str, float] = {}
        """Seconds from the start until each phase was done."""
        self.admin_uri = ""
        self.missing: list[str] = []
        """What this kernel or user cannot give to the confinement of instances, in words."""
        self.budget_text = ""

    def __enter__(self) -> Self:
        """Start everything; what was started is stopped again if something fails."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Stop everything, in order."""
        self.stop()

    @property
    def url(self) -> str:
        """Where the fleet answers."""
        host = self._settings.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
            host, f"[{host}]" if ":" in host else host
        )
        return f"http://{shown}:{self._settings.port}"

    @property
    def start_s(self) -> float:
        """Seconds from the beginning until the fleet answered."""
        return self.phases.get("cell", 0.0)

    def browser_url(self, tenant: str) -> str:
        """Return the tenant's own host: browsers find NAME.localhost without DNS."""
        return f"http://{tenant}.localhost:{self._settings.port}/"

    def create_tenant(self, name: str) -> "CreatedTenant":
        """Register a tenant unless it is there."""
        from mlfleet.catalogue.catalogue import Catalogue

        [created] = Catalogue(self.admin_uri).create_tenants([name])
        return created

    def _start(self) -> None:
        self._folder.fleet_file.unlink(missing_ok=True)
        self._check_port()
        FleetKey.from_file(self._folder.secret_key, create=True)
        if self._settings.admin_uri:
            self.admin_uri = self._settings.admin_uri
        else:
            self._initialise_postgres()
        self._start_cell()
        self._prepare_database()
        # Before the cell can be ready: whoever sees it ready finds the fleet, too.
        self._write_fleet_file()
        self._say("waiting for the cell")
        assert self._cell is not None
        self._cell.wait_until_ready(READY_S)
        self.missing += self._cell_admin().status().get("limits", [])
        self._done("cell")

    def _check_port(self) -> None:
        host, port = self._settings.host, self._settings.port
        if not ports.is_free(host, port):
            raise AlreadyRunningError(
                f"something already listens on {host}:{port}: end it, or choose another port"
                " with --port"
            )

    def _initialise_postgres(self) -> None:
        budget = connections.embedded(self._settings)
        budget.check()
        self._say("starting Postgres")
        port, self._port_claim = ports.reserve(self._last_postgres_port())
        self._postgres = EmbeddedPostgres(
            self._folder.postgres,
            port,
            budget.max_connections,
            self._folder.logs / "postgres.log",
        )
        self._postgres.initialise()
        self.admin_uri = self._postgres.admin_uri
        self._done("initdb")

    def _last_postgres_port(self) -> int | None:
        """Return the port of the last time: operators' tools may have noted it."""
        port_file = self._folder.run / "postgres.port"
        return int(port_file.read_text()) if port_file.exists() else None

    def _start_cell(self) -> None:
        self._cell = CellProcess(
            dataclasses.replace(self._settings, data=self._folder.path, admin_uri=self.admin_uri),
            self._folder.logs / f"{self._settings.cell}.log",
        )
        self._cell.start()

    def _prepare_database(self) -> None:
        if self._postgres:
            self._postgres.start()
            (self._folder.run / "postgres.port").write_text(str(self._postgres.port))
            self._done("postgres")
        budget = connections.of_server(self.admin_uri, self._settings)
        budget.check()
        self.budget_text = budget.arithmetic
        # Imported now, with the cell already on its way: sqlalchemy takes 0.3 s.
        from mlfleet.runtime.preparation import prepare

        self._say("preparing catalogue and template")
        self.missing += prepare(self.admin_uri)
        self._done("template")

    def _write_fleet_file(self) -> None:
        cell = self._cell_admin()
        self._folder.write(
            FleetFile(
                url=self.url,
                admin_uri=self.admin_uri,
                cells={cell.name: cell.socket_path},
                pid=os.getpid(),
                settings=self._settings.without_secrets().to_environ(),
            )
        )

    def _cell_admin(self) -> CellAdmin:
        name = self._settings.cell
        return CellAdmin(name, str(self._folder.admin_socket(name)))

    def _done(self, phase: str) -> None:
        self.phases[phase] = round(time.monotonic() - self._began, 3)

    def watch(self) -> None:
        """Start again what ends by itself; only an exception ends this (KeyboardInterrupt)."""
        now = time.monotonic()
        keepers = []
        if self._postgres is not None:
            keepers.append(Keeper("Postgres", _Launched(self._postgres), now, self._say))
        if self._cell is not None:
            keepers.append(Keeper("the cell", self._cell, now, self._say))
        while True:
            time.sleep(POLL_S)
            for keeper in keepers:
                keeper.look(time.monotonic())

    def stop(self) -> None:
        """End the cell, then Postgres; within `drain_s` and two seconds."""
        self._folder.fleet_file.unlink(missing_ok=True)
        if self._cell:
            self._say("finishing requests in flight")
            self._cell.ask_to_stop()
            if not self._cell.wait(self._settings.drain_s + CELL_END_S):
                log.error("cell_killed", extra={"after_s": self._settings.drain_s + CELL_END_S})
                self._cell.kill()
        if self._postgres:
            self._say("stopping Postgres")
            self._postgres.stop(POSTGRES_STOP_S)
        if self._port_claim:
            self._port_claim.close()
