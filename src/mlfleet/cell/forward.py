"""Carry one request to an instance and its answer back, streaming both ways.

Memory per request is bounded by the buffers of the two connections, whatever the body's size. What
describes the way (hop-by-hop headers, forwarding headers, credentials) is taken off or set anew;
everything else travels as the bytes that came.
"""

import asyncio
from http import HTTPStatus

from mlfleet.cell import handover
from mlfleet.cell.answers import http_date
from mlfleet.cell.outside import Outside
from mlfleet.cell.routing import Route, rewrite_location
from mlfleet.cell.server import Incoming
from mlfleet.cell.upstream import Head, LostError, Upstream

SMALL_BODY_BYTES = 1048576
"""A body up to this length is read whole first: one write, and it can be sent again."""
SMALL_ANSWER_BYTES = 65536
"""An answer up to this length is written whole or not at all: a request without an answer may be
sent again, or gets a 429, while no client resends what was half answered."""

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_FORWARDED = _HOP_BY_HOP | {
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"forwarded",
    b"host",
    b"origin",
    b"x-real-ip",
}
_NOT_HANDED_OVER = _HOP_BY_HOP | {
    b"content-length",
    b"expect",
    b"forwarded",
    b"host",
    b"x-real-ip",
}
_ANSWERED_BY = handover.ANSWERED_BY.encode()
_NOT_RETURNED = _HOP_BY_HOP | {b"date", b"set-cookie", b"x-content-type-options", _ANSWERED_BY}
"""Set anew or dropped. Stock sets no cookie; one from an instance could only aim at neighbours."""

HANDOVER_HEADER = handover.HEADER.encode()
ROUTE_HEADER = b"x-mlfleet-route"
SANDBOX = b"content-security-policy: sandbox\r\n"
"""What tenants uploaded may be looked at, and never runs as the site. Only the UI's own files are
served without it; they come with MLflow's package and not from a tenant."""

REPEATABLE_WRITES = frozenset(
    {"log-metric", "log-parameter", "log-batch", "set-tag", "log-inputs", "update", "delete"}
)
"""Calls below `mlflow/runs/` whose second execution leaves what the first one left."""


def request_head(
    incoming: Incoming, route: Route, user: str, outside: Outside, body: "Body"
) -> bytes:
    """Return the head that the instance gets."""
    message = incoming.message
    lines = [b"%s %s HTTP/1.1\r\nhost: localhost\r\n" % (message.method.encode(), _target(route))]
    lines += _kept(incoming, _NOT_FORWARDED)
    host = outside.host.encode("utf-8", "surrogateescape")
    lines.append(
        b"x-forwarded-for: %s\r\nx-forwarded-proto: %s\r\nx-forwarded-host: %s\r\n"
        b"x-mlfleet-user: %s\r\n"
        % (
            outside.client.encode(),
            outside.scheme.encode(),
            host,
            user.encode("latin-1", "replace"),
        )
    )
    if route.prefix:
        lines.append(b"x-forwarded-prefix: %s\r\n" % route.prefix.encode())
    lines.append(_framing(body))
    return b"".join(lines)


def handover_head(incoming: Incoming, host: str, papers: str, body: "Body") -> bytes:
    """Return the head that another cell gets: target and credentials as they came.

    Args:
        host: name of the other cell.
        papers: what `handover.seal` says of the request.
    """
    message = incoming.message
    target = message.path.encode()
    lines = [b"%s %s HTTP/1.1\r\nhost: %s\r\n" % (message.method.encode(), target, host.encode())]
    lines += _kept(incoming, _NOT_HANDED_OVER)
    lines.append(b"%s: %s\r\n" % (HANDOVER_HEADER, papers.encode()))
    lines.append(_framing(body))
    return b"".join(lines)


def _kept(incoming: Incoming, dropped: frozenset[bytes]) -> list[bytes]:
    """Return the lines of a request's headers that may travel on."""
    message = incoming.message
    if connection := message.headers.get("Connection"):
        dropped = dropped | {name.strip().lower().encode() for name in connection.split(",")}
    lines = []
    for name, value in message.raw_headers:
        lower = name.lower()
        # WSGI takes _ and - for the same, so x_forwarded_for would be one of ours.
        if lower in dropped or lower.startswith((b"x-forwarded-", b"x-mlfleet-")) or b"_" in lower:
            continue
        lines.append(b"%s: %s\r\n" % (name, value))
    return lines


def _framing(body: "Body") -> bytes:
    """Return the last lines of a head: how its body is delimited."""
    if body.is_chunked:
        return b"transfer-encoding: chunked\r\n\r\n"
    return b"\r\n" if body.length is None else b"content-length: %d\r\n\r\n" % body.length


def _target(route: Route) -> bytes:
    path = route.path.encode()
    return path if path.startswith(b"/") else b"/" + path


class Body:
    """The body of a request: small ones whole, others as they come."""

    def __init__(self, incoming: Incoming, client_idle_s: float) -> None:
        self._incoming = incoming
        self._client_idle_s = client_idle_s
        message = incoming.message
        self.is_chunked = bool(message.chunked)
        length = message.headers.get("Content-Length")
        self.length = int(length) if length is not None else None
        self.whole: bytes | None = None
        self.read_bytes = 0

    async def begin(self) -> None:
        """Let a client that asked first go on, and read a small body whole."""
        if "Expect" in self._incoming.message.headers and not self._incoming.body.is_eof():
            self._incoming.write_interim(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self.read_small()

    async def read_small(self) -> None:
        """Read a small body whole."""
        content = self._incoming.body
        if content.is_eof():
            self.whole = content.read_nowait()
        elif self.length is not None and self.length <= SMALL_BODY_BYTES:
            async with asyncio.timeout(self._client_idle_s):
                self.whole = await content.read()
        else:
            return
        self.read_bytes = len(self.whole)
        if self.is_chunked:
            self.is_chunked = False
            self.length = len(self.whole)

    async def stream(self, upstream: Upstream, max_bytes: int) -> None:
        """Send the body on, piece by piece.

        Raises:
            LostError: the instance went away.
            TimeoutError: the client sent nothing for `client_idle_s`.
            BodyTooLargeError: more than `max_bytes`, if that is not 0.
        """
        content = self._incoming.body
        while True:
            async with asyncio.timeout(self._client_idle_s):
                piece = await content.readany()
            if not piece:
                break
            self.read_bytes += len(piece)
            if max_bytes and self.read_bytes > max_bytes:
                raise BodyTooLargeError
            await upstream.send(b"%x\r\n%s\r\n" % (len(piece), piece) if self.is_chunked else piece)
        if self.is_chunked:
            await upstream.send(b"0\r\n\r\n")


class BodyTooLargeError(Exception):
    """A chunked body grew beyond the limit."""


class Relay:
    """Writes an instance's response to the client."""

    def __init__(self, incoming: Incoming, upstream: Upstream, route: Route) -> None:
        self._incoming = incoming
        self._upstream = upstream
        self._route = route
        self.sent_bytes = 0
        self.added = b""
        """Header lines of our own."""
        self.store_route: bytes = b""
        """What the store said about a write call: hot, stock, or nothing."""

    async def run(self, head: Head) -> None:
        """Write the whole response.

        Raises:
            LostError: the instance went away in the middle; the client has seen nothing of a small
                answer, and its connection was cut in the middle of another.
            ConnectionError: the client went away.
        """
        incoming, upstream = self._incoming, self._upstream
        is_head = incoming.message.method == "HEAD"
        has_body = not is_head and head.status >= 200 and head.status not in (204, 304)
        data, framed = self._head(head, has_body)
        piece = upstream.take()
        if has_body and _content_length(head) <= SMALL_ANSWER_BYTES:
            while not upstream.is_complete:
                piece += await upstream.read()
        while True:
            if piece:
                self.sent_bytes += len(piece)
                data += b"%x\r\n%s\r\n" % (len(piece), piece) if framed else piece
            if upstream.is_complete:
                incoming.write(data + b"0\r\n\r\n" if framed else data)
                return
            if data:
                incoming.write(data)
                await incoming.drain()
            data = b""
            try:
                piece = await upstream.read()
            except LostError:
                incoming.abort()
                raise

    def _head(self, head: Head, has_body: bool) -> tuple[bytes, bool]:
        """Return the head for the client, and whether the body is to be chunked."""
        reason = head.reason or HTTPStatus(head.status).phrase.encode()
        lines = [b"HTTP/1.1 %d %s\r\n" % (head.status, reason)]
        has_length = self._describe(head, lines)
        framed = False
        if has_body and not has_length:
            if self._incoming.message.version >= (1, 1):
                framed = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self._incoming.close = True
        if self._incoming.close:
            lines.append(b"connection: close\r\n")
        elif self._incoming.message.version < (1, 1):
            lines.append(b"connection: keep-alive\r\n")
        lines.append(b"\r\n")
        return b"".join(lines), framed

    def _describe(self, head: Head, lines: list[bytes]) -> bool:
        """Add the headers that describe the answer; return whether its length is one of them."""
        # Our own: only some of an instance's answers (files) have one.
        date = http_date().encode()
        lines.append(b"date: %s\r\nx-content-type-options: nosniff\r\n" % date)
        has_length = False
        for name, value in head.headers:
            lower = name.lower()
            if lower in _NOT_RETURNED:
                continue
            if lower == ROUTE_HEADER:
                self.store_route = value
                continue
            if lower == b"content-length":
                has_length = True
            elif lower == b"location":
                location = rewrite_location(value.decode("latin-1"), self._route.prefix)
                value = location.encode("latin-1")
            lines.append(b"%s: %s\r\n" % (name, value))
        if not is_ui(self._route.path):
            lines.append(SANDBOX)
        if self.added:
            lines.append(self.added)
        return has_length


def _content_length(head: Head) -> float:
    """Return the length that an answer says it has, infinity if it says none."""
    found = [value for name, value in head.headers if name.lower() == b"content-length"]
    return int(found[0]) if found else float("inf")


class CellRelay(Relay):
    """Writes another cell's response: it is as the client shall see it."""

    def _describe(self, head: Head, lines: list[bytes]) -> bool:
        has_length = False
        for name, value in head.headers:
            lower = name.lower()
            if lower not in _HOP_BY_HOP and lower != _ANSWERED_BY:
                has_length = has_length or lower == b"content-length"
                lines.append(b"%s: %s\r\n" % (name, value))
        return has_length


def is_ui(path: str) -> bool:
    """Return whether a raw path is a page or a file of MLflow's own UI."""
    path = path.partition("?")[0]
    # No dots beyond: `/static-files/../get-artifact` must not be taken for the UI.
    return path == "/" or (
        path.startswith("/static-files/") and "/." not in path and "%" not in path
    )


def may_repeat(method: str, path: str) -> bool:
    """Return whether sending a request twice does what sending it once does."""
    if method in ("GET", "HEAD", "OPTIONS", "PUT"):
        return True
    rest, _, call = path.partition("?")[0].rpartition("/")
    return rest.endswith("/mlflow/runs") and call in REPEATABLE_WRITES
