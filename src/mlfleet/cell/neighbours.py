"""Hand a request over to the cell that its tenant lives in: a tenant that moved keeps its address.

Forwarding and not a redirect: stock clients follow a 308, but drop the token on the way to another
host. The other cell checks the token again, and its answer travels back as it is. What the other
cell, or a proxy before it, cannot answer becomes a 429, and the client decides.
"""

import asyncio
import functools
import socket
import time
import urllib.parse
from typing import NamedTuple

from mlfleet.cell import forward, handover
from mlfleet.cell.answers import InterruptedRequestError
from mlfleet.cell.delivery import Limits, Request
from mlfleet.cell.exchange import exchange
from mlfleet.cell.forward import Body, CellRelay
from mlfleet.cell.handover import Handover
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.upstream import Head, LostError, Upstream
from mlfleet.errors import FleetError, NoCapacityError

CONNECT_S = 5.0
"""How long a connection to another cell may take: there is an ingress even while it is at zero."""
POOL_IDLE_S = 10.0
"""A connection that nobody used for this long is not used again."""
ATTEMPTS = 2
_KEEP_ALIVE = (
    # A node that is lost sends no reset: without probes a request would wait for ever.
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


class Address(NamedTuple):
    """Where a cell listens, or the ingress before it."""

    host: str
    port: int
    name: str
    """For the Host header."""


class Addresses:
    """Where the cells of a fleet are: `NAME=URL,…`, or one URL with `{cell}` for the name."""

    def __init__(self, text: str) -> None:
        """Read the setting.

        Raises:
            FleetError: not of that form.
        """
        self._named: dict[str, str] = {}
        self._pattern = ""
        for part in filter(None, map(str.strip, text.split(","))):
            name, equals, url = part.partition("=")
            if equals:
                self._named[name] = url
            else:
                self._pattern = part
            _address(url if equals else part.replace("{cell}", "cell-0"), text)
        if self._pattern and "{cell}" not in self._pattern:
            raise _unreadable(text)

    def of(self, cell: str) -> Address:
        """Return a cell's address.

        Raises:
            NoCapacityError: it is not known here (yet).
        """
        url = self._named.get(cell) or self._pattern.replace("{cell}", cell)
        if not url:
            raise NoCapacityError(f"The address of cell {cell!r} is not known here; try again")
        return _address(url, url)


def _address(url: str, setting: str) -> Address:
    try:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/"):
            raise _unreadable(setting)
        return Address(parts.hostname, parts.port or 80, parts.netloc)
    except ValueError as exc:
        raise _unreadable(setting) from exc


def _unreadable(setting: str) -> FleetError:
    return FleetError(
        f"MLFLEET_CELL_ADDRESS={setting!r} must be like http://{{cell}}.mlfleet.svc.cluster.local, "
        "or NAME=http://HOST:PORT,… for each cell"
    )


class Neighbours:
    """The other cells, and connections to them."""

    def __init__(
        self, cell: str, addresses: Addresses, key: str, limits: Limits, metrics: Metrics
    ) -> None:
        self.cell = cell
        """This cell's own name."""
        self._addresses = addresses
        self._key = key
        self._limits = limits
        self._metrics = metrics
        self._idle: dict[Address, list[tuple[Upstream, float]]] = {}
        self.is_draining = False
        """Close each client's connection after its answer."""

    async def deliver(self, request: Request, cell: str) -> None:
        """Send the request to another cell and its answer to the client.

        Raises:
            NoCapacityError: the cell cannot be reached, or broke off before it answered.
            LostError: the answer broke off in the middle.
        """
        incoming, route = request.incoming, request.route
        self._metrics.handed_over.inc()
        address = self._addresses.of(cell)
        body = Body(incoming, self._limits.client_idle_s)
        await body.begin()
        papers = Handover(self.cell, cell, route.tenant if route.own_host else "", request.outside)
        head = forward.handover_head(incoming, address.name, handover.seal(papers, self._key), body)
        may_repeat = forward.may_repeat(incoming.message.method, route.path)
        for attempt in range(ATTEMPTS):
            # A kept connection may have been closed a moment ago, and nobody could tell whether
            # the request was read: what must not run twice gets a new one.
            upstream = self._kept(address) if may_repeat and not attempt else None
            upstream = upstream or await self._connect(address, cell)
            try:
                await self._exchange(request, upstream, head, body, cell)
                return
            except LostError:
                if incoming.started:
                    raise
                if not may_repeat or (body.whole is None and body.read_bytes):
                    break
            finally:
                self._give_back(address, upstream)
        self._metrics.handover_failures.inc()
        raise InterruptedRequestError(
            f"Cell {cell!r}, where {route.tenant!r} lives, went away before it answered; try again"
        )

    async def _exchange(
        self, request: Request, upstream: Upstream, head: bytes, body: Body, cell: str
    ) -> None:
        answering = functools.partial(self._relay, request, upstream, body, cell)
        limit = self._limits.max_body_bytes
        await exchange(request.incoming, upstream, head, body, limit, answering)

    async def _relay(
        self, request: Request, upstream: Upstream, body: Body, cell: str, response: Head
    ) -> None:
        names = {name.lower() for name, _ in response.headers}
        if handover.ANSWERED_BY.encode() not in names:
            # The ingress, or Knative: the cell itself did not get (or not finish) the request.
            upstream.close()
            self._metrics.handover_failures.inc()
            raise NoCapacityError(
                f"Cell {cell!r}, where {request.route.tenant!r} lives, did not answer: what stands "
                f"before it said {response.status}; try again"
            )
        record = request.record
        if self.is_draining:
            request.incoming.close = True
        relay = CellRelay(request.incoming, upstream, request.route)
        record.status = response.status
        try:
            await relay.run(response)
        finally:
            record.received_bytes, record.sent_bytes = body.read_bytes, relay.sent_bytes

    def _kept(self, address: Address) -> Upstream | None:
        idle = self._idle.get(address, [])
        while idle:
            upstream, since = idle.pop()
            if not upstream.is_lost and time.monotonic() - since < POOL_IDLE_S:
                return upstream
            upstream.close()
        return None

    async def _connect(self, address: Address, cell: str) -> Upstream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, upstream = await loop.create_connection(
                    Upstream, address.host, address.port
                )
        except OSError as exc:
            self._metrics.handover_failures.inc()
            raise NoCapacityError(
                f"Cell {cell!r}, where this tenant lives, cannot be reached "
                f"({str(exc) or 'no connection in time'}); try again"
            ) from exc
        sock = transport.get_extra_info("socket")
        for level, option, value in _KEEP_ALIVE:
            sock.setsockopt(level, option, value)
        return upstream

    def _give_back(self, address: Address, upstream: Upstream) -> None:
        if not upstream.is_reusable:
            upstream.close()
            return
        now = time.monotonic()
        idle = self._idle.setdefault(address, [])
        while idle and now - idle[0][1] >= POOL_IDLE_S:
            idle.pop(0)[0].close()
        idle.append((upstream, now))

    def close(self) -> None:
        """Close the connections that wait for a request."""
        for idle in self._idle.values():
            while idle:
                idle.pop()[0].close()
