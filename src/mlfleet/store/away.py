"""Turn "Postgres is away" into 429 with `Retry-After`, whatever stock code makes of the exception.

A client retries 429 and never 400 or 404, so a temporary trouble must not leave as anything else.
Stock wraps exceptions on their way up (500, 503, in some handlers 400), so the status cannot be
trusted to survive. Hence two steps: the store notes in the request's `Trouble` that the database
was away, and the ASGI layer replaces an answer of 400 and above by a 429 when it finds that note.
The note travels in a context variable, which threads of Starlette and anyio inherit.
"""

import contextvars
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

RETRY_AFTER = b"1"


class Trouble:
    """What went wrong below one request: the sentence for the client, or None."""

    message: str | None = None


_trouble: contextvars.ContextVar[Trouble | None] = contextvars.ContextVar("trouble", default=None)


def note(message: str) -> None:
    """Note that the request being served failed because the database was away."""
    trouble = _trouble.get()
    if trouble is not None:
        trouble.message = message


def answer(message: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Return headers and body of the 429, in the form of MLflow's other errors."""
    body = json.dumps({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", RETRY_AFTER),
    ]
    return headers, body


class AwayGuard:
    """ASGI application in front of `app` whose failures for want of Postgres become 429."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        trouble = Trouble()
        reset = _trouble.set(trouble)
        has_begun = is_replaced = False

        async def guarded(message: Message) -> None:
            nonlocal has_begun, is_replaced
            if is_replaced:
                return
            if message["type"] == "http.response.start":
                has_begun = True
                if message["status"] >= 400 and trouble.message is not None:
                    is_replaced = True
                    await _send_answer(trouble.message, send)
                    return
            await send(message)

        try:
            await self.app(scope, receive, guarded)
        except Exception:
            if has_begun or trouble.message is None:
                raise
            await _send_answer(trouble.message, send)
        finally:
            _trouble.reset(reset)


async def _send_answer(message: str, send: Send) -> None:
    headers, body = answer(message)
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body", "body": body})
