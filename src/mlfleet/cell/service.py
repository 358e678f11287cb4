"""Put the parts of a cell together, run them, and stop them in order.

Stopping: say "not ready", close the listener, finish every request that was accepted (held ones
too), put all instances to sleep, then let the zygote go. Each step has a deadline.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path

from mlfleet.catalogue.models import Tenant
from mlfleet.cell import admin
from mlfleet.cell.door import Door
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.tenants import Catalogue, Known, Tenants
from mlfleet.cell.wakes import Wakes
from mlfleet.cell.waking import Birth, Instances, WakeSettings
from mlfleet.cell.zygote_link import ZygoteLink
from mlfleet.database.keys import FleetKey
from mlfleet.settings import Settings

log = logging.getLogger(__name__)

LAST_GRACE_S = 2.0
"""For instances to end, and for cancelled work, after everything else."""


class Service:
    """A cell: gateway, admin API, instances and zygote."""

    def __init__(
        self,
        settings: Settings,
        key: FleetKey,
        catalogue: Catalogue,
        provide: Callable[[Tenant], Awaitable[Birth]],
        zygote: ZygoteLink,
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.zygote = zygote
        self.tenants = Tenants(catalogue, settings.hold_s, settings.catalogue_poll_s, self._changed)
        self.instances = Instances(zygote, self._birth, _wake_settings(settings), metrics)
        self.wakes = Wakes(functools.partial(self.tenants.call, catalogue.note_wakes))
        self.instances.on_wake = self.wakes.add
        self._provide = provide
        self.door = Door(settings, key, self.tenants, self.instances, metrics)
        self.gateway = self.door.gateway
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin to stop; `run` returns when everything is down."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop` is called.

        Raises:
            OSError: the address is taken.
        """
        api = admin.Admin(self.settings.cell, self.gateway, self.tenants, self.instances)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.door.close)
            await self.door.open()
            stack.callback(self.tenants.close)
            await stack.enter_async_context(
                _running(
                    self.zygote.run(),
                    self.tenants.run(),
                    self.instances.run(),
                    self.wakes.run(),
                    self._become_ready(),
                )
            )
            await stack.enter_async_context(admin.serving(api.application(), self.admin_socket))
            await self._stopping.wait()
            await self._drain()

    @property
    def admin_socket(self) -> Path:
        """Where the admin API listens."""
        return self.settings.data / "run" / f"{self.settings.cell}.sock"

    async def _become_ready(self) -> None:
        self.gateway.not_ready = "the catalogue was not reached yet"
        await self.tenants.was_reached.wait()
        self.gateway.not_ready = "the zygote is warming up"
        await self.zygote.wait_warm()
        if not self._stopping.is_set():
            self.gateway.not_ready = ""
            log.info("ready")

    async def _drain(self) -> None:
        deadline = time.monotonic() + self.settings.drain_s
        log.info("draining", extra={"drain_s": self.settings.drain_s})
        left = await self.door.drain(deadline)
        await self.instances.close(max(LAST_GRACE_S, deadline - time.monotonic()))
        await self.wakes.close()
        log.info("drained", extra={"cut_off": left})

    async def _birth(self, name: str) -> Birth:
        known = await self.tenants.find(name)
        birth = await self._provide(known.tenant)
        if known.tenant.state != "ready":
            await self.tenants.refresh(name)
        return birth

    def _changed(self, name: str, known: Known | None) -> None:
        """A tenant that is gone, going or lives in another cell now must not keep a process."""
        if known is None or known.tenant.state == "deleting" or self._has_moved(known):
            self.instances.begin_sleep(name)
        else:
            tenant = known.tenant
            identity = (tenant.id, tenant.password_generation)
            self.instances.refresh(name, identity, tenant.quota.memory_bytes)

    def _has_moved(self, known: Known) -> bool:
        return self.door.neighbours is not None and known.tenant.cell != self.settings.cell


@contextlib.asynccontextmanager
async def _running(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run endless work beside the context: if one fails, all end and its error is raised."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        yield
        for task in tasks:
            task.cancel()


def _wake_settings(settings: Settings) -> WakeSettings:
    return WakeSettings(
        idle_s=settings.idle_s,
        max_awake=settings.max_awake,
        hold_s=settings.hold_s,
        drain_s=settings.drain_s,
        memory_poll_s=settings.memory_poll_s,
    )
