"""The ASGI front of an instance: answer plain write calls at once, hand the rest to stock MLflow.

Six routes, under `/api/2.0/mlflow/runs/` and `/ajax-api/2.0/mlflow/runs/`. A call is answered here
only when it succeeded and is committed. Whatever is not plainly valid, and each call the database
did not carry out, goes to stock with its body unchanged, so that errors are stock's. The header
`x-mlfleet-route` says which way a call took.

No Starlette, no request objects: a hot `log-metric` spends its time in the HTTP parser.
"""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from mlfleet.store import away, calls
from mlfleet.store.away import ASGIApp, AwayGuard, Message, Receive, Scope, Send
from mlfleet.store.calls import Call
from mlfleet.store.connection import StoreConnection
from mlfleet.store.group_commit import Away, GroupCommit, Stock, Verdict

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
_EMPTY_HEADERS = [*_HEADERS, (b"content-length", b"2")]

_ROOTS = ("/api/2.0/mlflow/runs/", "/ajax-api/2.0/mlflow/runs/")


def _read_create(body: bytes) -> calls.CreateRun | None:
    from mlflow.utils.name_utils import _generate_random_name

    return calls.read_create(body, uuid.uuid4().hex, _generate_random_name())


_READERS: dict[str, Callable[[bytes], Call | None]] = {
    root + name: reader
    for root in _ROOTS
    for name, reader in (
        ("log-metric", calls.read_metric),
        ("log-batch", calls.read_batch),
        ("log-parameter", calls.read_param),
        ("set-tag", calls.read_tag),
        ("create", _read_create),
        ("update", calls.read_update),
    )
}


class HotWrites:
    """ASGI application around `app`, which is stock MLflow, on the instance's one connection."""

    def __init__(self, app: ASGIApp, connection: StoreConnection) -> None:
        self.app = AwayGuard(app)
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
        verdict = None if call is None else await self._carry_out(call)
        if call is None or isinstance(verdict, Stock):
            await self.app(scope, _replay(body, receive), _marked(send))
        else:
            await _answer(call, verdict, send)

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


async def _answer(call: Call, verdict: Verdict | None, send: Send) -> None:
    if isinstance(verdict, Away):
        headers, body = away.answer(verdict.message)
        await _send(send, 429, [*headers, _HOT], body)
    elif isinstance(call, calls.RunWrite):
        await _send(send, 200, _EMPTY_HEADERS, b"{}")
    else:
        assert isinstance(verdict, tuple)
        body = _created(call, verdict) if isinstance(call, calls.CreateRun) else _updated(verdict)
        await _send(send, 200, [*_HEADERS, (b"content-length", str(len(body)).encode())], body)


async def _send(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _created(call: calls.CreateRun, row: tuple[Any, ...]) -> bytes:
    """Return the body of `runs/create`, to the byte what stock's `message_to_json` makes."""
    info = {
        "run_uuid": call.run_id,
        "experiment_id": call.experiment_id,
        "run_name": call.run_name,
        "user_id": call.user_id,
        "status": "RUNNING",
        "start_time": call.start_time,
        "artifact_uri": row[1],
        "lifecycle_stage": "active",
        "run_id": call.run_id,
    }
    tags = [{"key": key, "value": value} for key, value in call.tags.items()]
    run = {"run": {"info": info, "data": {"tags": tags}, "inputs": {}}}
    return json.dumps(run, indent=2).encode()


def _updated(row: tuple[Any, ...]) -> bytes:
    """Return the body of `runs/update`; absent fields are left out as `RunInfo.to_proto` does."""
    _, run_id, experiment_id, name, user_id, status, start_time, end_time, uri, stage = row
    info = {
        "run_uuid": run_id,
        "experiment_id": str(experiment_id),
        **({"run_name": name} if name is not None else {}),
        "user_id": user_id,
        "status": status,
        "start_time": start_time,
        **({"end_time": end_time} if end_time else {}),
        **({"artifact_uri": uri} if uri else {}),
        "lifecycle_stage": stage,
        "run_id": run_id,
    }
    return json.dumps({"run_info": info}, indent=2).encode()
