"""The ASGI front of an instance: answer plain calls at once, hand the rest to stock MLflow.

Eight routes, under `/api/2.0/mlflow/` and `/ajax-api/2.0/mlflow/`: six writes that share commits,
and two calls that one statement each answers. A call is answered here only when it succeeded and is
committed. Whatever is not plainly valid, and each call the database did not carry out, goes to
stock with its body unchanged, so that errors are stock's. The header `x-mlfleet-route` says which
way a call took.

No Starlette, no request objects: a hot `log-metric` spends its time in the HTTP parser.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import psycopg2

from mlfleet.errors import DatabaseAwayError
from mlfleet.store import away, bodies, calls, single_calls
from mlfleet.store.away import ASGIApp, AwayGuard, Message, Receive, Scope, Send
from mlfleet.store.calls import Call
from mlfleet.store.connection import StoreConnection
from mlfleet.store.group_commit import STOCK, Away, GroupCommit, Stock, Verdict
from mlfleet.store.single_calls import Single

log = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

_HOT: Header = (b"x-mlfleet-route", b"hot")
_STOCK: Header = (b"x-mlfleet-route", b"stock")
_HEADERS: list[Header] = [
    (b"content-type", b"application/json"),
    # What stock's security middleware puts on every answer.
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    _HOT,
]

_ROOTS = ("/api/2.0/mlflow/", "/ajax-api/2.0/mlflow/")


def _read_create(body: bytes) -> calls.CreateRun | None:
    from mlflow.utils.name_utils import _generate_random_name

    return calls.read_create(body, uuid.uuid4().hex, _generate_random_name())


_READERS: dict[str, Callable[[bytes], Call | Single | None]] = {
    root + name: reader
    for root in _ROOTS
    for name, reader in (
        ("runs/log-metric", calls.read_metric),
        ("runs/log-batch", calls.read_batch),
        ("runs/log-parameter", calls.read_param),
        ("runs/set-tag", calls.read_tag),
        ("runs/create", _read_create),
        ("runs/update", calls.read_update),
        ("runs/search", single_calls.read_search),
        ("experiments/create", single_calls.read_create_experiment),
    )
}


class HotCalls:
    """ASGI application around `app`, which is stock MLflow, on the instance's one connection."""

    def __init__(self, app: ASGIApp, connection: StoreConnection) -> None:
        self.app = AwayGuard(app)
        self._connection = connection
        self._writer = GroupCommit(connection, self._hand_out)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or (reader := _READERS.get(scope["path"])) is None:
            await self.app(scope, receive, send)
            return
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        if not _is_plain(scope):
            await self.app(scope, receive, _marked(send))
            return
        body = await _read_body(receive)
        call = None if body is None else reader(body)
        if call is None:
            answer: bytes | Away | Stock = STOCK
        elif isinstance(call, Single):
            answer = await asyncio.to_thread(self._ask, call)
        else:
            answer = _body(call, await self._carry_out(call))
        if isinstance(answer, Stock):
            await self.app(scope, _replay(body, receive), _marked(send))
        else:
            await _send(answer, send)

    async def close(self) -> None:
        """Finish the calls that wait and end the writer thread."""
        await asyncio.to_thread(self._writer.close)

    async def _carry_out(self, call: Call) -> Verdict:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        token: asyncio.Future[Verdict] = loop.create_future()
        self._writer.submit(token, call)
        return await token

    def _ask(self, call: Single) -> bytes | Away | Stock:
        try:
            rows = self._connection.execute(call.text, call.values, call.may_repeat)
        except DatabaseAwayError as exc:
            return Away(str(exc))
        except psycopg2.Error as exc:
            log.info("hot_statement_failed", extra={"calls": 1, "sqlstate": exc.pgcode})
            return STOCK
        body = call.body(rows)
        return STOCK if body is None else body

    def _hand_out(self, verdicts: Sequence[tuple[Any, Verdict]]) -> None:
        assert self._loop is not None
        # A closed loop: the process is ending and nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve, verdicts)


def _resolve(verdicts: Sequence[tuple[Any, Verdict]]) -> None:
    for token, verdict in verdicts:
        if not token.done():  # cancelled: the client has left
            token.set_result(verdict)


def _is_plain(scope: Scope) -> bool:
    """Whether headers and query leave nothing to decide: JSON of known, moderate length."""
    if scope["query_string"]:
        return False
    length = kind = None
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"content-type":
            kind = value
        elif name in (b"origin", b"x-mlflow-workspace", b"content-encoding"):
            return False
    return (
        kind is not None
        and kind.split(b";")[0] == b"application/json"
        and length is not None
        and length.isdigit()
        and int(length) <= calls.MAX_BODY_BYTES
    )


async def _read_body(receive: Receive) -> bytes | None:
    """Return the whole body, or None when the client left before its end."""
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    parts = [body]
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _replay(body: bytes | None, receive: Receive) -> Receive:
    """Return a `receive` that tells the body again, then goes on with what follows."""
    told = False

    async def again() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        if body is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _marked(send: Send) -> Send:
    """Return a `send` that adds `x-mlfleet-route: stock`."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), _STOCK]
        await send(message)

    return marked


def _body(call: Call, verdict: Verdict) -> bytes | Away | Stock:
    if isinstance(verdict, Away | Stock):
        return verdict
    if isinstance(call, calls.RunWrite):
        return b"{}"
    if isinstance(call, calls.CreateRun):
        return bodies.created(call, verdict)
    return bodies.updated(verdict)


async def _send(answer: bytes | Away, send: Send) -> None:
    if isinstance(answer, Away):
        status, (headers, body) = 429, away.answer(answer.message)
        headers = [*headers, _HOT]
    else:
        status, body = 200, answer
        headers = [*_HEADERS, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
