"""The front: a gateway without instances, `python -m mlfleet.cell.front`.

An ingress can send `*.DOMAIN` to a Kubernetes Service and not to a Knative one, whose hosts are
named one by one. So a wildcard ends here: the front finds the tenant, checks its token and hands
the request over to the tenant's cell, wherever that is and even if it is at zero. Settings are a
cell's; `MLFLEET_CELL_ADDRESS` says where the cells are.
"""

import asyncio
import contextlib
import dataclasses
import logging
import signal
import sys
import time

import uvloop

from mlfleet import log as fleet_log
from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.cell.door import Door
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.tenants import Catalogue as Source
from mlfleet.cell.tenants import Tenants
from mlfleet.database.keys import FleetKey
from mlfleet.errors import FleetError
from mlfleet.settings import Settings

log = logging.getLogger("mlfleet.cell.front")

NAME = "(front)"
"""In a cell's place; no cell can have this name, so no tenant lives here."""


class Front:
    """Runs the door and follows the catalogue."""

    def __init__(self, settings: Settings, key: FleetKey, catalogue: Source) -> None:
        self._settings = dataclasses.replace(settings, cell=NAME)
        self._tenants = Tenants(catalogue, settings.hold_s, settings.catalogue_poll_s)
        self._door = Door(self._settings, key, self._tenants, None, Metrics())
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin to stop; `run` returns when everything was answered."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop` is called.

        Raises:
            OSError: the address is taken.
        """
        with contextlib.closing(self._tenants), contextlib.closing(self._door):
            await self._door.open()
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._tenants.run()),
                    group.create_task(self._become_ready()),
                ]
                await self._stopping.wait()
                log.info("draining", extra={"drain_s": self._settings.drain_s})
                left = await self._door.drain(time.monotonic() + self._settings.drain_s)
                for task in tasks:
                    task.cancel()
        log.info("drained", extra={"cut_off": left})

    async def _become_ready(self) -> None:
        self._door.gateway.not_ready = "the catalogue was not reached yet"
        await self._tenants.was_reached.wait()
        if not self._stopping.is_set():
            self._door.gateway.not_ready = ""
            log.info("ready")


async def _run(settings: Settings, key: FleetKey, catalogue: Catalogue) -> None:
    front = Front(settings, key, catalogue)
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, front.stop)
    await front.run()


def main() -> int:
    """Run the front until it is told to stop; return the exit code."""
    fleet_log.configure()
    try:
        settings = Settings.from_environ()
        if settings.admin_uri is None or settings.cell_address is None:
            raise FleetError("MLFLEET_ADMIN_URI and MLFLEET_CELL_ADDRESS must be set")
        key = FleetKey.from_file(settings.data / "secret.key")
        catalogue = Catalogue(settings.admin_uri)
        with contextlib.closing(catalogue):
            uvloop.run(_run(settings, key, catalogue))
    except (FleetError, OSError) as exc:
        log.error("front_failed", extra={"reason": str(exc)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
