"""What an instance does when its memory limit is reached: say so to the client, then start afresh.

The request that could not be served is answered 429 with `Retry-After`, since it (or a smaller
one) works in a fresh instance. The limit (RLIMIT_DATA) leaves the rest of the process intact, but
a heap at its limit stays there, so the instance drains and ends; the gateway wakes a new one.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from mlfleet.cell.wsgi import EXHAUSTED, ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

_BODY = json.dumps(
    {
        "error_code": "RESOURCE_EXHAUSTED",
        "message": "This tenant's server reached its memory limit and starts afresh; try again, "
        "ask for less at a time (max_results), or have the operator raise the tenant's limit.",
    }
).encode()
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"retry-after", b"1"),
]


class MemoryGuard:
    """An ASGI application around another one, which answers 429 when memory ran out."""

    def __init__(self, app: ASGIApp, on_exhausted: Callable[[], None]) -> None:
        self.app = app
        self.on_exhausted = on_exhausted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; an answer that has begun is cut off instead."""
        has_begun = False

        async def watch(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except MemoryError:
            log.error("memory_exhausted", extra={"path": scope.get("path")})
            self.on_exhausted()
            if has_begun:
                raise
            await send({"type": "http.response.start", "status": 429, "headers": _HEADERS})
            await send({"type": "http.response.body", "body": _BODY})


def report_from_flask(flask_app: Any) -> None:
    """Have Flask report a MemoryError to the bridge instead of making a page of its own."""

    def report(exc: MemoryError) -> tuple[str, int]:
        from flask import request

        request.environ[EXHAUSTED] = True
        return "", 429

    flask_app.register_error_handler(MemoryError, report)
