"""The way in, of a cell and of the front: gateway, listener, request log, ways to other cells."""

import asyncio
import logging
import resource
import time

from mlfleet.cell.access import Sessions
from mlfleet.cell.delivery import Limits
from mlfleet.cell.entrance import Entrance
from mlfleet.cell.gateway import Gateway
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.neighbours import Addresses, Neighbours
from mlfleet.cell.outside import Ingress
from mlfleet.cell.request_log import RequestLog
from mlfleet.cell.routing import Hosts
from mlfleet.cell.server import Server
from mlfleet.cell.tenants import Tenants
from mlfleet.cell.waking import Instances
from mlfleet.database.keys import FleetKey
from mlfleet.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 4096
ACCEPT_GRACE_S = 0.1
"""Between "not ready" and the closed listener, so that what the kernel accepted is taken."""


class Door:
    """Takes requests until it is closed."""

    def __init__(
        self,
        settings: Settings,
        key: FleetKey,
        tenants: Tenants,
        instances: Instances | None,
        metrics: Metrics,
    ) -> None:
        """Put the gateway together; `instances` is none where every request goes to a cell."""
        limits = Limits(
            hold_s=settings.hold_s,
            queue=settings.queue,
            max_body_bytes=settings.max_body_bytes,
            client_idle_s=settings.client_idle_s,
        )
        self.neighbours = None
        if settings.cell_address is not None:
            addresses = Addresses(settings.cell_address)
            self.neighbours = Neighbours(
                settings.cell, addresses, key.handover_key, limits, metrics
            )
        hosts = Hosts(settings.public_hosts)
        ingress = Ingress(settings.trusted_proxies, settings.inner_hops)
        self._request_log = RequestLog() if settings.log_requests else None
        self.gateway = Gateway(
            tenants,
            instances,
            Entrance(settings.cell, hosts, settings.public_scheme, ingress, key.handover_key),
            Sessions(key.session_key, settings.session_s),
            limits,
            metrics,
            self.neighbours,
            self._request_log,
        )
        self._settings = settings
        self._metrics = metrics

    async def open(self) -> None:
        """Begin to listen.

        Raises:
            OSError: the address is taken.
        """
        _raise_open_files()
        host, port = self._settings.host, self._settings.port
        self._server = Server(
            self.gateway.handle,
            head_s=self._settings.head_s,
            keep_alive_s=self._settings.keep_alive_s,
            on_bad_request=self._metrics.refused.inc,
        )
        self._listener = await asyncio.get_running_loop().create_server(
            self._server, host, port, backlog=BACKLOG
        )
        log.info("listening", extra={"host": host, "port": port})

    async def drain(self, deadline: float) -> int:
        """Take no more, and finish what was taken; return how many connections were cut off.

        Args:
            deadline: on the monotonic clock.
        """
        self.gateway.drain()
        self._server.is_draining = True
        await asyncio.sleep(ACCEPT_GRACE_S)
        self._listener.close()
        left = self._server.close_idle()
        while left and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            left = self._server.close_idle()
        if left:
            log.warning("drain_cut_off", extra={"connections": left})
        await self._server.shutdown(0.1)
        return left

    def close(self) -> None:
        """Let go of what is left."""
        if self.neighbours is not None:
            self.neighbours.close()
        if self._request_log is not None:
            self._request_log.flush()


def _raise_open_files() -> None:
    """Allow as many open files as this user may: each client and each instance takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
