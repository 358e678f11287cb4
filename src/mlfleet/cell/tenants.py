"""What the gateway knows of tenants: a cache of the catalogue, refreshed by a poll each second.

A poll, not LISTEN: it works through PgBouncer, and a missed notification would keep a revoked
token alive. With the catalogue away, tenants that are known go on; unknown ones are held, then told
to try again. Nothing here wakes anybody.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from mlfleet.catalogue.models import Tenant
from mlfleet.catalogue.tokens import Token
from mlfleet.errors import DatabaseAwayError, FleetError, UnknownTenantError

log = logging.getLogger(__name__)

RETRY_S = 0.25
UNKNOWN_S = 1.0
"""How long a name stays unknown without asking again; also bounds what guessing names can cost."""
UNKNOWN_NAMES = 10_000
FRESH_S = 0.25
"""A token that the cache does not know is looked up again when the cache is older than this."""


class Catalogue(Protocol):
    """What the gateway asks of the catalogue; every call blocks and may raise DatabaseAwayError."""

    def tenant(self, name: str) -> Tenant | None: ...
    def changed_since(self, cursor: int | None) -> tuple[Iterable[str], int]: ...
    def count_by_state(self) -> Mapping[str, int]: ...
    def note_wakes(self, ages_s: Mapping[int, float]) -> None: ...


class Known:
    """A tenant with its tokens by digest."""

    __slots__ = ("read_at", "tenant", "tokens")

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.read_at = time.monotonic()
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
        self.states: Mapping[str, int] = {}
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
            known = await self._ask_once(name)
            if known is not None:
                return known
        raise UnknownTenantError(
            f"No tenant {name!r} in this fleet; `mlfleet tenant create {name}` makes one"
        )

    async def newest(self, known: Known) -> Known:
        """Return the tenant as the catalogue has it, at most a moment ago.

        For a token that the cache does not know: it may have been made after the last poll. Waits
        so that a tenant is read at most every `FRESH_S`, however many tokens are guessed.

        Raises:
            DatabaseAwayError: the catalogue could not be asked within the holding time.
        """
        await asyncio.sleep(known.read_at + FRESH_S - time.monotonic())
        name = known.tenant.name
        if self._known.get(name) is known:
            await self._ask_once(name)
        return self._known.get(name, known)

    async def _ask_once(self, name: str) -> Known | None:
        """Ask the catalogue, once for all who want to know at this moment."""
        task = self._asking.get(name)
        if task is None:
            task = asyncio.create_task(self._ask(name))
            self._asking[name] = task
            task.add_done_callback(lambda _: self._asking.pop(name, None))
        return await asyncio.shield(task)

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
        cursor: int | None = None
        is_away = False
        while True:
            try:
                names, cursor = await self.call(self.catalogue.changed_since, cursor)
                for name in names:
                    if name in self._known or name in self._unknown:
                        await self.refresh(name)
                self.states = await self.call(self.catalogue.count_by_state)
            except FleetError as exc:
                # Also a catalogue that is not there yet: it is made beside a cell that starts.
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
        tenant = await self._read(name)
        if tenant is not None:
            self._known[name] = Known(tenant)
            return self._known[name]
        if len(self._unknown) >= UNKNOWN_NAMES:
            self._unknown.clear()
        self._unknown[name] = time.monotonic() + UNKNOWN_S
        return None

    async def _read(self, name: str) -> Tenant | None:
        """Read a tenant, waiting for the catalogue within the holding time."""
        reason: object = "it does not answer"
        try:
            async with asyncio.timeout(self._hold_s):
                while True:
                    try:
                        found: Tenant | None = await self.call(self.catalogue.tenant, name)
                        return found
                    except FleetError as exc:
                        reason = exc
                        await asyncio.sleep(RETRY_S)
        except TimeoutError:
            raise DatabaseAwayError(f"The catalogue cannot be asked: {reason}") from None
