"""One HTTP/1.1 connection to an instance: llhttp (httptools) over a passed socket pair.

aiohttp's client would do, but costs more CPU per request than all the rest of the gateway, hides
whether a byte of the answer has come (what decides about sending again), and parses and rebuilds
the target, which must travel byte for byte. Exchanges are strictly one after the other.
"""

import asyncio
import dataclasses
import socket
from collections import deque

import httptools

HIGH_WATER_BYTES = 262144
"""Unread body bytes at which reading from the instance stops; the bound on memory per request."""
LOW_WATER_BYTES = 65536


ATOMIC_BYTES = 32768
"""The kernel hands a write of this size to the reader whole: what was not read, was not begun."""


class LostError(Exception):
    """The connection ended before a response was complete.

    Attributes:
        was_unread: true if the instance cannot have seen the request.
    """

    def __init__(self, message: str, *, was_unread: bool = False) -> None:
        super().__init__(message)
        self.was_unread = was_unread


@dataclasses.dataclass(slots=True)
class Head:
    """Status line and headers of a response, as they came."""

    status: int
    reason: bytes
    headers: list[tuple[bytes, bytes]]


class Upstream(asyncio.Protocol):
    """A connection to one instance, used by one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._is_write_paused = False
        self._is_read_paused = False
        self.is_lost = False
        self._is_atomic = False
        self._was_reset = False
        self._begin(is_head=False)

    def _begin(self, *, is_head: bool) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._is_head = is_head
        self._reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: Head | None = None
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self.is_complete = False
        self._keeps_alive = True

    # The exchange.

    def start(self, data: bytes, *, is_head: bool) -> None:
        """Send the head of a request, and the body or its beginning.

        Raises:
            LostError: the instance closed this connection before.
        """
        if self.is_lost or self._transport is None:
            raise LostError("the connection was closed before it was used", was_unread=True)
        self._begin(is_head=is_head)
        self._is_atomic = len(data) <= ATOMIC_BYTES
        self._transport.write(data)

    async def send(self, data: bytes) -> None:
        """Send more of the body; returns when there is room for the next piece."""
        if self.is_lost or self._transport is None:
            raise LostError("the instance went away while it was sent a body")
        self._transport.write(data)
        if self._is_write_paused:
            self._writable = self._loop.create_future()
            await self._writable

    async def head(self) -> Head:
        """Wait for the head of the response.

        Raises:
            LostError: the connection ended first.
        """
        while self._head is None:
            if self.is_lost:
                message = "the instance went away before it answered"
                raise LostError(message, was_unread=self._was_reset and self._is_atomic)
            await self._wait()
        return self._head

    async def read(self) -> bytes:
        """Return the body bytes that have come, waiting for some; nothing at the end.

        Raises:
            LostError: the connection ended in the middle of the body.
        """
        while not self._chunks:
            if self.is_complete:
                return b""
            if self.is_lost:
                raise LostError("the instance went away in the middle of its answer")
            await self._wait()
        return self.take()

    def take(self) -> bytes:
        """Return the body bytes at hand, without waiting."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._is_read_paused and self._transport is not None:
            self._is_read_paused = False
            self._transport.resume_reading()
        return data

    @property
    def is_reusable(self) -> bool:
        """True if the exchange is over and another one may follow."""
        return self.is_complete and self._keeps_alive and not self.is_lost and not self._chunks

    def close(self) -> None:
        """Close the connection; the instance sees that its client is gone."""
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.close()
        except httptools.HttpParserError:
            # Not HTTP: whatever the instance is now, nothing more of it can be understood.
            self.close()
        if self._buffered > HIGH_WATER_BYTES and not self._is_read_paused:
            self._is_read_paused = True
            if self._transport is not None:
                self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        # A response without a length ends with its connection.
        if (
            self._head is not None
            and not self.is_complete
            and exc is None
            and self._ends_with_eof()
        ):
            self.is_complete = True
        # Linux resets a Unix socket whose peer closed (or died) with bytes left unread, and takes
        # no bytes for one that was closed before.
        self._was_reset = isinstance(exc, ConnectionResetError | BrokenPipeError)
        self.is_lost = True
        self._transport = None
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def _ends_with_eof(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        return b"content-length" not in names and b"transfer-encoding" not in names

    # httptools callbacks

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            # 100 Continue was answered by the gateway itself.
            self._headers = []
            self._reason = b""
            return
        self._keeps_alive = self._parser.should_keep_alive()
        self._head = Head(status, self._reason, self._headers)
        if self._is_head:
            # llhttp would wait for the body that the headers describe.
            self.is_complete = True

    def on_body(self, data: bytes) -> None:
        self._chunks.append(data)
        self._buffered += len(data)

    def on_message_complete(self) -> None:
        if self._head is not None:
            self.is_complete = True


async def connect(sock: socket.socket) -> Upstream:
    """Return a connection over our end of a socket pair."""
    loop = asyncio.get_running_loop()
    _, upstream = await loop.create_unix_connection(Upstream, sock=sock)
    return upstream
