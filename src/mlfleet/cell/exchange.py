"""One exchange on one connection: a request's head and body out, the answer's head back."""

import asyncio
from collections.abc import Awaitable, Callable

from mlfleet.cell.forward import Body, BodyTooLargeError
from mlfleet.cell.server import Incoming
from mlfleet.cell.upstream import Head, LostError, Upstream
from mlfleet.errors import QuotaError

Answering = Callable[[Head], Awaitable[None]]
"""Writes the answer to the client, once its head is here."""


async def exchange(
    incoming: Incoming,
    upstream: Upstream,
    head: bytes,
    body: Body,
    max_body_bytes: int,
    answering: Answering,
) -> None:
    """Send a request and have its answer written.

    Raises:
        LostError: the connection ended; `incoming.started` tells whether the client saw any of it.
        QuotaError: the body grew beyond `max_body_bytes`, if that is not 0.
    """
    is_head = incoming.message.method == "HEAD"
    if body.whole is not None:
        upstream.start(head + body.whole, is_head=is_head)
        await answering(await upstream.head())
    else:
        upstream.start(head, is_head=is_head)
        await _stream(incoming, upstream, body, max_body_bytes, answering)


async def _stream(
    incoming: Incoming,
    upstream: Upstream,
    body: Body,
    max_body_bytes: int,
    answering: Answering,
) -> None:
    """Send a long body while waiting for the answer, which may come before its end."""
    upload = asyncio.create_task(body.stream(upstream, max_body_bytes))
    answered = asyncio.create_task(upstream.head())
    try:
        await asyncio.wait([upload, answered], return_when=asyncio.FIRST_COMPLETED)
        if not answered.done() and (exc := upload.exception()) is not None:
            if isinstance(exc, BodyTooLargeError):
                raise QuotaError(f"A body of more than {max_body_bytes} bytes is not allowed here")
            if not isinstance(exc, LostError):
                raise exc
        await answering(await answered)
        if not upload.done():
            # The answer came early (a refusal): the rest of the body interests nobody.
            incoming.close = True
    finally:
        if not upload.done() or upload.cancelled() or upload.exception():
            upstream.close()
        upload.cancel()
        answered.cancel()
        # Gathered, not awaited: whatever they say now has been dealt with.
        await asyncio.gather(upload, answered, return_exceptions=True)
