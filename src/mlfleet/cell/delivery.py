"""Deliver one request to its tenant's instance: wake it, send, send again where that is safe.

What may be sent again is decided by what is known: an instance that was not ready, or a connection
that was reset with the request unread, cannot have acted on it; some calls leave the same behind
when they run twice. Everything else becomes a 429, and the client decides.
"""

import asyncio
import contextlib
import dataclasses
import functools
import time

from mlfleet.cell import browser, forward
from mlfleet.cell.answers import InterruptedRequestError
from mlfleet.cell.exchange import exchange
from mlfleet.cell.forward import Body, Relay
from mlfleet.cell.instances import Instance
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.outside import Outside
from mlfleet.cell.request_log import Record
from mlfleet.cell.routing import Route
from mlfleet.cell.server import Incoming
from mlfleet.cell.upstream import Head, LostError, Upstream
from mlfleet.cell.waking import Instances
from mlfleet.errors import DatabaseAwayError, NoCapacityError

ATTEMPTS = 3
"""Instances one request is sent to at most before it is refused."""

ENDING_S = 1
"""How long a refusal waits for the end of the instance it blames, so that the next try meets
another."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of one request."""

    hold_s: float
    queue: int
    max_body_bytes: int
    client_idle_s: float


@dataclasses.dataclass(slots=True)
class Request:
    """A request that was let in, and what to note about it."""

    incoming: Incoming
    route: Route
    outside: Outside
    user: str
    """Name of the token that it came with."""
    record: Record
    added: bytes = b""
    """Header lines that its answer gets."""


class Delivery:
    """Carries requests to instances."""

    def __init__(self, instances: Instances, limits: Limits, metrics: Metrics) -> None:
        self._instances = instances
        self._limits = limits
        self._metrics = metrics
        self.is_draining = False
        """Close each client's connection after its answer."""

    async def is_slow(self, tenant: str, record: Record) -> str:
        """Return why a page has to wait; empty if the instance is up or comes up at once."""
        instance = self._instances.get(tenant)
        if instance is not None and instance.ready.is_set():
            return ""
        record.wished_at = time.monotonic()
        try:
            async with asyncio.timeout(browser.WAITING_AFTER_S):
                instance = await self._instances.wake(tenant)
                await instance.ready.wait()
        except TimeoutError:
            return "This takes a moment. The page opens by itself."
        except (NoCapacityError, DatabaseAwayError) as exc:
            await asyncio.sleep(browser.WAITING_AFTER_S / 2)
            return str(exc)
        return ""

    async def deliver(self, request: Request) -> None:
        """Send the request to the tenant's instance and its answer to the client.

        Raises:
            NoCapacityError: no instance could be had, or the one that had it went away.
            LostError: the answer broke off in the middle.
        """
        incoming, route = request.incoming, request.route
        body = Body(incoming, self._limits.client_idle_s)
        await body.begin()
        head = forward.request_head(incoming, route, request.user, request.outside, body)
        method = incoming.message.method
        may_repeat = forward.may_repeat(method, route.path)
        for _ in range(ATTEMPTS):
            instance = self._instances.get(route.tenant)
            if instance is None:
                request.record.woke = True
                _begin_to_wait(request.record)
                instance = await self._instances.wake(route.tenant)
                if not instance.is_usable:
                    continue
            try:
                await self._exchange(request, instance, head, body)
                return
            except LostError as exc:
                if incoming.started:
                    raise
                # What was not ready has read nothing but its configuration.
                may_send_again = may_repeat or exc.was_unread or not instance.ready.is_set()
                if not may_send_again or (body.whole is None and body.read_bytes):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(instance.gone.wait(), ENDING_S)
                    break
        raise InterruptedRequestError(
            f"The instance of {route.tenant!r} went away before it answered; try again"
        )

    async def _exchange(
        self, request: Request, instance: Instance, head: bytes, body: Body
    ) -> None:
        """One try at one instance.

        Raises:
            LostError: it went away; `incoming.started` tells whether the client has seen any of it.
        """
        instance.in_flight += 1
        upstream: Upstream | None = None
        is_waking = not instance.ready.is_set()
        if is_waking:
            self._metrics.held.inc()
            _begin_to_wait(request.record)
        try:
            upstream = await instance.connection()
            answering = functools.partial(self._relay, request, instance, upstream, body)
            limit = self._limits.max_body_bytes
            await exchange(request.incoming, upstream, head, body, limit, answering)
        finally:
            if is_waking:
                self._metrics.held.dec()
            instance.in_flight -= 1
            instance.last_used = time.monotonic()
            if upstream is not None:
                instance.give_back(upstream)

    async def _relay(
        self,
        request: Request,
        instance: Instance,
        upstream: Upstream,
        body: Body,
        response: Head,
    ) -> None:
        record = request.record
        if self.is_draining:
            request.incoming.close = True
        relay = Relay(request.incoming, upstream, request.route)
        relay.added = request.added
        if record.wished_at is not None:
            wake_ms = instance.woke_in_s(record.wished_at) * 1000
            relay.added += b"server-timing: wake;dur=%.1f\r\n" % wake_ms
        record.status = response.status
        try:
            await relay.run(response)
        finally:
            record.received_bytes = body.read_bytes
            record.sent_bytes = relay.sent_bytes
            if relay.store_route:
                record.store_route = relay.store_route.decode("latin-1")
                if (counter := self._metrics.by_route.get(record.store_route)) is not None:
                    counter.inc()


def _begin_to_wait(record: Record) -> None:
    if record.wished_at is None:
        record.wished_at = time.monotonic()
