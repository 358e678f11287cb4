"""Serve a WSGI application (MLflow's Flask part) from ASGI, without buffering either body.

Takes the place of Starlette's WSGIMiddleware, which collects the whole request body in memory and
needs two thread hops and two streams per request. Here an ordinary request costs one hop: a thread
runs the application and hands back the head and the first part of the body together. Longer bodies
are pulled part by part, so a slow reader slows the producer and memory stays flat. What reaches the
application (environ) and the client (lower-case header names) is what Starlette's bridge makes.
"""

import asyncio
import contextvars
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from types import TracebackType
from typing import IO, Any

from mlfleet.cell.threads import Threads

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
WSGIApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

SPOOL_BYTES = 1024 * 1024
"""A request body up to this size stays in memory, a longer one goes to a temporary file."""
PART_BYTES = 256 * 1024
"""How much of a response body one thread hop fetches."""
EXHAUSTED = "mlfleet.exhausted"
"""The application sets this key of the environ when memory ran out; the bridge then raises."""
_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class ClientGoneError(Exception):
    """The client left before its request was complete; there is nobody to answer."""


class Wsgi:
    """An ASGI application that runs a WSGI application in a small pool of threads."""

    def __init__(self, app: WSGIApp, threads: Threads) -> None:
        self.app = app
        self.threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other kinds of connection are turned away as stock does."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as body:
            try:
                length = await self._receive_body(receive, body)
            except ClientGoneError:
                return
            call = _Call(self.app, environ_of(scope, body, length))
            await self._respond(call, send)

    async def _receive_body(self, receive: Receive, body: IO[bytes]) -> int:
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            if chunk := message.get("body", b""):
                length += len(chunk)
                if length > SPOOL_BYTES:
                    await self._in_thread(body.write, chunk)
                else:
                    body.write(chunk)
            if not message.get("more_body", False):
                body.seek(0)
                return length

    async def _respond(self, call: "_Call", send: Send) -> None:
        # One context for the whole request: Flask's request context must be popped where it was
        # pushed, and a context variable cannot be reset from another context.
        context = contextvars.copy_context()
        try:
            part, is_last = await self._in_thread(context.run, call.start)
            await send(
                {"type": "http.response.start", "status": call.status, "headers": call.headers}
            )
            while not is_last:
                await send({"type": "http.response.body", "body": part, "more_body": True})
                part, is_last = await self._in_thread(context.run, call.next_part)
            await send({"type": "http.response.body", "body": part})
        finally:
            if call.needs_close:
                await asyncio.shield(self._in_thread(context.run, call.close))

    async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self.threads.run(function, *args)


class _Call:
    """One run of the WSGI application; every method is called in a thread, one after the other."""

    def __init__(self, app: WSGIApp, environ: dict[str, Any]) -> None:
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.needs_close = False
        self._app = app
        self._environ = environ
        self._chunks: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] = iter(())

    def start(self) -> tuple[bytes, bool]:
        """Run the application; return the first part of the body and whether it is the last."""
        self._chunks = self._app(self._environ, self._start_response)
        self.needs_close = True
        if EXHAUSTED in self._environ:
            raise MemoryError
        self._iterator = iter(self._chunks)
        return self.next_part()

    def next_part(self) -> tuple[bytes, bool]:
        """Return the next part of the body and whether it is the last."""
        chunks: list[bytes] = []
        size = 0
        for chunk in self._iterator:
            chunks.append(chunk)
            size += len(chunk)
            if size >= PART_BYTES:
                return b"".join(chunks), False
        # Closed here, so that an ordinary request needs no further hop.
        self.close()
        return b"".join(chunks), True

    def close(self) -> None:
        """Let the application release what it holds for this request (WSGI's `close`)."""
        if self.needs_close:
            self.needs_close = False
            close = getattr(self._chunks, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        self.status = int(status.split(" ", 1)[0])
        self.headers = [
            (name.strip().encode("latin1").lower(), value.strip().encode("latin1"))
            for name, value in headers
        ]
        return _refuse_write


def _refuse_write(data: bytes) -> None:
    raise NotImplementedError("WSGI's write() is not offered; return an iterable")


def environ_of(scope: Scope, body: IO[bytes], length: int) -> dict[str, Any]:
    """Return the WSGI environ of a request (the same as `starlette.middleware.wsgi` builds).

    `CONTENT_LENGTH` is the length received, so that a chunked body is not taken for an empty one.
    """
    server = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"].encode("utf8").decode("latin1"),
        "QUERY_STRING": scope["query_string"].decode("ascii"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": server[1],
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if scope.get("client"):
        environ["REMOTE_ADDR"] = scope["client"][0]
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin1").upper().replace("-", "_")
        if name not in ("CONTENT_LENGTH", "CONTENT_TYPE"):
            name = f"HTTP_{name}"
        value = raw_value.decode("latin1")
        environ[name] = f"{environ[name]},{value}" if name in environ else value
    if length or "CONTENT_LENGTH" in environ:
        environ["CONTENT_LENGTH"] = str(length)
    return environ
