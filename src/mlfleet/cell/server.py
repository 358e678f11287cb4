"""The listening half of the gateway: aiohttp's HTTP server with a deadline on request heads.

aiohttp parses (llhttp, strict) and keeps connections; this module says how long a head may take to
arrive, words the errors of the parser as one line, and hands the handler a light request object
instead of aiohttp's `BaseRequest`, whose URL parsing would cost more than our whole routing.
"""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from mlfleet.cell import answers
from mlfleet.cell.answers import Answer, BadRequestError

MAX_LINE_BYTES = 16384
"""Longest request line. MLflow's GET calls carry lists of ids in the query."""
MAX_FIELD_BYTES = 8192
"""Longest header. Not the number of the line: aiohttp tells only which limit was hit."""


class Incoming:
    """One request: what the parser found, the body's stream and the way back."""

    __slots__ = ("_task", "body", "close", "message", "protocol", "started", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        body: StreamReader,
        protocol: web.RequestHandler,
        writer: AbstractStreamWriter,
        task: "asyncio.Task[None] | None",
    ) -> None:
        self.message = message
        self.body = body
        self.protocol = protocol
        self.writer = writer
        self._task = task
        self.started = False
        """True once a byte of the response was written."""
        self.close = message.should_close
        """True if the connection ends after this response."""

    @property
    def remote(self) -> str:
        """The peer's address."""
        peer = self.protocol.peername
        return str(peer[0]) if isinstance(peer, tuple) else "unknown"

    def write(self, data: bytes) -> None:
        """Write bytes of the response; call `drain` between large pieces.

        Raises:
            ConnectionResetError: the client is gone.
        """
        transport = self.protocol.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self.started = True
        transport.write(data)

    def write_interim(self, data: bytes) -> None:
        """Write an interim response; the response proper is still to come."""
        self.write(data)
        self.started = False

    async def drain(self) -> None:
        """Wait until the client has taken enough of what was written."""
        await self.writer.drain()

    def abort(self) -> None:
        """Cut the connection, so that the client sees that its response is incomplete."""
        self.close = True
        if (transport := self.protocol.transport) is not None:
            transport.abort()

    # What aiohttp's server calls on a request.

    def _finish(self) -> None: ...

    def _cancel(self, exc: BaseException) -> None:
        self.body.set_exception(exc)


class Written:
    """Tells aiohttp's server that the response was written already."""

    __slots__ = ("keep_alive",)

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None: ...

    async def write_eof(self) -> None: ...


_KEPT = Written(keep_alive=True)
_CLOSED = Written(keep_alive=False)

Handler = Callable[[Incoming], Awaitable[None]]


class Connection(web.RequestHandler):
    """One client connection whose request heads must arrive in time."""

    __slots__ = ("_head_deadline", "head_s", "on_bad_request")

    def __init__(
        self, *args: Any, head_s: float, on_bad_request: Callable[[], None], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.head_s = head_s
        self.on_bad_request = on_bad_request
        self._head_deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Bytes came and still no complete head is at hand: a head is under way.
        is_waiting = self._waiter is not None and not self._waiter.done()
        if is_waiting and data and self._head_deadline is None:
            self._head_deadline = self._loop.call_later(self.head_s, self._head_is_late)
        elif not is_waiting and self._head_deadline is not None:
            self._drop_deadline()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._drop_deadline()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """True between two requests, with no byte of the next one."""
        return self._waiter is not None and not self._messages and self._head_deadline is None

    def handle_error(
        self,
        request: Any,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused with one line, and close."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        self.on_bad_request()
        request.close = True
        request.write(_refused(exc).encode())
        return cast(web.StreamResponse, _CLOSED)

    def _head_is_late(self) -> None:
        self._head_deadline = None
        if self.transport is not None:
            late = BadRequestError(
                f"The request head was not complete within {self.head_s:g} s", status=408
            )
            self.transport.write(answers.refusal(late).encode())
        self.force_close()

    def _drop_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None


class Server(web.Server):
    """aiohttp's low-level server with our connections and requests."""

    def __init__(
        self,
        handler: Handler,
        *,
        head_s: float,
        keep_alive_s: float,
        on_bad_request: Callable[[], None],
    ) -> None:
        async def handle(incoming: Incoming) -> Written:
            await handler(incoming)
            return _CLOSED if incoming.close or self.is_draining else _KEPT

        # A client that leaves cancels its handler: nothing is held for nobody.
        super().__init__(
            cast(Any, handle),
            request_factory=cast(Any, Incoming),
            handler_cancellation=True,
        )
        self.is_draining = False
        self._limits = Limits(head_s, keep_alive_s)
        self._on_bad_request = on_bad_request

    def close_idle(self) -> int:
        """Close connections between two requests, and return how many others there are."""
        busy = 0
        for connection in self.connections:
            if isinstance(connection, Connection) and connection.is_idle:
                connection.force_close()
            else:
                busy += 1
        return busy

    def __call__(self) -> web.RequestHandler:
        return Connection(
            self,
            loop=self._loop,
            head_s=self._limits.head_s,
            keepalive_timeout=self._limits.keep_alive_s,
            on_bad_request=self._on_bad_request,
            access_log=cast(Any, None),
            auto_decompress=False,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_FIELD_BYTES,
            lingering_time=2.0,
        )


@dataclasses.dataclass(frozen=True)
class Limits:
    """Patience with a connection."""

    head_s: float
    keep_alive_s: float


def _refused(exc: HttpProcessingError) -> Answer:
    first_line = str(exc.message or "malformed HTTP").strip().splitlines()[0].rstrip(":")
    if isinstance(exc, LineTooLong) and MAX_LINE_BYTES in exc.args:
        too_long = f"The request line is longer than {MAX_LINE_BYTES} bytes"
        return answers.refusal(BadRequestError(too_long, status=414))
    if isinstance(exc, LineTooLong):
        too_long = f"A header is longer than {MAX_FIELD_BYTES} bytes"
        return answers.refusal(BadRequestError(too_long, status=431))
    if "too many headers" in first_line.lower():
        return answers.refusal(BadRequestError("More than 128 headers", status=431))
    return answers.refusal(BadRequestError(f"Bad request: {first_line[:200]}"))
