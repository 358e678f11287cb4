"""Note in the catalogue when tenants woke: one statement a minute for all of a cell.

So whoever wants to know asks the catalogue and no cell, which might be at zero. A note that fails
is tried again with the next ones; one that is lost with a killed cell is a view that lags.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from mlfleet.errors import FleetError

log = logging.getLogger(__name__)

NOTE_S = 60.0
LAST_S = 1.0
"""What a cell that ends gives its last note."""

Note = Callable[[dict[int, float]], Awaitable[None]]
"""Takes seconds since the wake by tenant id; may raise FleetError."""


class Wakes:
    """The wakes of one cell that are not noted yet."""

    def __init__(self, note: Note, clock: Callable[[], float] = time.monotonic) -> None:
        self._note, self._clock = note, clock
        self._woken: dict[int, float] = {}

    def add(self, tenant_id: int) -> None:
        """Remember that a tenant has just woken."""
        self._woken[tenant_id] = self._clock()

    async def flush(self) -> None:
        """Note what was remembered; keep it if that fails."""
        woken, self._woken = self._woken, {}
        if not woken:
            return
        now = self._clock()
        try:
            await self._note({tenant: now - at for tenant, at in woken.items()})
        except FleetError as exc:
            self._woken = {**woken, **self._woken}
            log.warning("wakes_not_noted", extra={"count": len(woken), "reason": str(exc)})

    async def run(self) -> None:
        """Note them every minute until cancelled."""
        while True:
            await asyncio.sleep(NOTE_S)
            await self.flush()

    async def close(self) -> None:
        """Note the last ones, within a short time."""
        try:
            async with asyncio.timeout(LAST_S):
                await self.flush()
        except TimeoutError:
            log.warning("wakes_not_noted", extra={"reason": "no time was left"})
