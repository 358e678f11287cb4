"""Run one cell: `python -m mlfleet.cell`, settings from `MLFLEET_*` variables.

Needs `MLFLEET_ADMIN_URI` and the fleet key in `<data>/secret.key`. Starts at once and waits for
Postgres, so it may be started beside it. SIGTERM and SIGINT drain.
"""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import uvloop

from mlfleet import log as fleet_log
from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.provision import Provisioner
from mlfleet.cell import zygote
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.provision import Provision
from mlfleet.cell.service import Service
from mlfleet.cell.zygote_link import ZygoteLink
from mlfleet.database.admin import Admin
from mlfleet.database.keys import FleetKey
from mlfleet.errors import FleetError
from mlfleet.settings import Settings

log = logging.getLogger("mlfleet.cell")


def main() -> int:
    """Run a cell until it is told to stop; return the exit code."""
    fleet_log.configure()
    try:
        settings = Settings.from_environ()
        if settings.admin_uri is None:
            raise FleetError(
                "MLFLEET_ADMIN_URI is not set: postgresql://USER:PASSWORD@HOST/postgres"
            )
        key = FleetKey.from_file(settings.data / "secret.key")
        uvloop.run(_run(settings, settings.admin_uri, key))
    except (FleetError, OSError) as exc:
        log.error("cell_failed", extra={"reason": str(exc)})
        return 1
    return 0


async def _run(settings: Settings, admin_uri: str, key: FleetKey) -> None:
    catalogue = Catalogue(admin_uri)
    admin = Admin(admin_uri, settings.pooler_address)
    provision = Provision(settings, Provisioner(catalogue, admin, key))
    metrics = Metrics()
    environment = zygote.environment() | {"TMPDIR": str(_temporary(settings.data))}
    link = ZygoteLink(
        zygote.command, environment, provision.warm_database, provision.has_own_users, metrics
    )
    service = Service(settings, key, catalogue, provision.birth, link, metrics)
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, service.stop)
    try:
        await service.run()
    finally:
        provision.close()
        admin.close()
        catalogue.close()


def _temporary(data: Path) -> Path:
    """Return the folder below which instances have their private temporary ones."""
    folder = data.absolute() / "tmp"
    folder.mkdir(mode=0o700, exist_ok=True)
    # Entered, not listed, by instances that run as users of their own.
    folder.chmod(0o711)
    return folder


if __name__ == "__main__":
    sys.exit(main())
