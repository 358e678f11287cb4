"""Make a cell of its parts and run it: catalogue, provisioning, zygote, service."""

import asyncio
import functools
import signal

import uvloop

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.provision import Provisioner
from mlfleet.cell import zygote_process
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.provision import Provision
from mlfleet.cell.service import Service
from mlfleet.cell.zygote_link import ZygoteLink
from mlfleet.cell.zygote_process import ZygoteProcess
from mlfleet.database.admin import Admin
from mlfleet.database.keys import FleetKey
from mlfleet.settings import Settings


def run(
    settings: Settings,
    admin_uri: str,
    key: FleetKey,
    zygote_environment: dict[str, str],
    first_zygote: ZygoteProcess,
) -> None:
    """Run a cell until SIGTERM or SIGINT, then drain.

    Raises:
        OSError: the address is taken.
    """
    uvloop.run(_run(settings, admin_uri, key, zygote_environment, first_zygote))


async def _run(
    settings: Settings,
    admin_uri: str,
    key: FleetKey,
    zygote_environment: dict[str, str],
    first_zygote: ZygoteProcess,
) -> None:
    catalogue = Catalogue(admin_uri)
    admin = Admin(admin_uri, settings.pooler_address)
    provision = Provision(settings, Provisioner(catalogue, admin, key))
    metrics = Metrics()
    link = ZygoteLink(
        functools.partial(zygote_process.start, zygote_environment),
        provision.warm_database,
        provision.has_own_users,
        metrics,
        first_zygote,
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
