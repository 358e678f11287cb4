"""What the gateway knows of tenants: a cache of the catalogue, refreshed by a poll each second.

A poll, not LISTEN: it works through PgBouncer, and a missed notification would keep a revoked
token alive. With the catalogue away, tenants that are known go on; unknown ones are held, then told
to try again. Nothing here wakes anybody.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Protocol

from mlfleet.cell.access import Token
from mlfleet.errors import DatabaseAwayError, UnknownTenantError

log = logging.getLogger(__name__)

RETRY_S = 0.25
UNKNOWN_S = 1.0
"""How long a name stays unknown without asking again; also bounds what guessing names can cost."""
UNKNOWN_NAMES = 10_000


class Quota(Protocol):
    """A tenant's limits."""

    @property
    def concurrency(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def artifact_bytes(self) -> int: ...


class Tenant(Protocol):
    """What the catalogue says of a tenant."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def password_generation(self) -> int: ...
    @property
    def quota(self) -> Quota: ...
    @property
    def artifact_uri(self) -> str | None: ...
    @property
    def tokens(self) -> Iterable[Token]: ...


class Catalogue(Protocol):
    """What the gateway asks of the catalogue; every call blocks and may raise DatabaseAwayError."""

    def tenant(self, name: str) -> Tenant | None: ...
    def changed_since(self, moment: datetime | None) -> tuple[Iterable[str], datetime]: ...
    def count_by_state(self) -> dict[str, int]: ...


class Known:
    """A tenant with its tokens by digest."""

    __slots__ = ("tenant", "tokens")

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.tokens: dict[str, Token] = {token.sha256_hex: token for token in tenant.tokens}


class Tenants:
    """The cache, and the threads that ask the catalogue."""

    def __init__(
        self,
        catalogue: Catalogue,
        hold_s: float,
        poll_s: float,
        on_change: Callable[[str, Known | None], None] = lambda name, known: None,
    ) -> None:
        self.catalogue = catalogue
        self._hold_s = hold_s
        self._poll_s = poll_s
        self._on_change = on_change
        self._known: dict[str, Known] = {}
        self._unknown: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[Known | None]] = {}
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="catalogue")
        self.states: dict[str, int] = {}
        self.was_reached = asyncio.Event()

    def get(self, name: str) -> Known | None:
        """Return the tenant if it is in the cache."""
        return self._known.get(name)

    async def find(self, name: str) -> Known:
        """Return the tenant, asking the catalogue if need be.

        Raises:
            UnknownTenantError: the catalogue has none of that name.
            DatabaseAwayError: it could not be asked within the holding time.
        """
        if (known := self._known.get(name)) is not None:
            return known
        if time.monotonic() >= self._unknown.get(name, 0.0):
            task = self._asking.get(name)
            if task is None:
                task = asyncio.create_task(self._ask(name))
                self._asking[name] = task
                task.add_done_callback(lambda _: self._asking.pop(name, None))
            known = await asyncio.shield(task)
            if known is not None:
                return known
        raise UnknownTenantError(
            f"No tenant {name!r} in this fleet; `mlfleet tenant create {name}` makes one"
        )

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a blocking call of the catalogue in its bounded pool of threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def refresh(self, name: str) -> None:
        """Read one tenant again."""
        tenant = await self.call(self.catalogue.tenant, name)
        known = Known(tenant) if tenant is not None else None
        self._unknown.pop(name, None)
        if known is None:
            self._known.pop(name, None)
        else:
            self._known[name] = known
        self._on_change(name, known)

    async def run(self) -> None:
        """Follow the catalogue until cancelled."""
        moment: datetime | None = None
        is_away = False
        while True:
            try:
                names, moment = await self.call(self.catalogue.changed_since, moment)
                for name in names:
                    if name in self._known or name in self._unknown:
                        await self.refresh(name)
                self.states = await self.call(self.catalogue.count_by_state)
            except DatabaseAwayError as exc:
                if not is_away:
                    log.warning("catalogue_away", extra={"reason": str(exc)})
                is_away = True
            else:
                if is_away:
                    log.info("catalogue_back")
                is_away = False
                self.was_reached.set()
            await asyncio.sleep(self._poll_s)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, name: str) -> Known | None:
        deadline = time.monotonic() + self._hold_s
        while True:
            try:
                tenant = await self.call(self.catalogue.tenant, name)
            except DatabaseAwayError:
                if time.monotonic() + RETRY_S > deadline:
                    raise
                await asyncio.sleep(RETRY_S)
                continue
            if tenant is not None:
                self._known[name] = Known(tenant)
                return self._known[name]
            if len(self._unknown) >= UNKNOWN_NAMES:
                self._unknown.clear()
            self._unknown[name] = time.monotonic() + UNKNOWN_S
            return None
