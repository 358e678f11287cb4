"""Whatever stock makes of "the database is away", the client hears 429 and when to come again."""

import asyncio
import contextvars
from typing import Any

import pytest

from mlfleet.store import away


def serve(app: Any) -> list[Any]:
    """Return the messages that leave the guard for one request."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    asyncio.run(away.AwayGuard(app)({"type": "http"}, receive, send))
    return sent


async def respond(send: Any, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"stock"})


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_failure_after_trouble_in_a_thread_becomes_429(status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.to_thread(contextvars.copy_context().run, away.note, "Try again.")
        await respond(send, status)

    start, body = serve(app)
    assert start["status"] == 429
    assert (b"retry-after", b"1") in start["headers"]
    assert b"Try again." in body["body"]


def test_an_exception_after_trouble_becomes_429_too() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        away.note("Try again.")
        raise RuntimeError("stock gave up")

    assert serve(app)[0]["status"] == 429


@pytest.mark.parametrize(("status", "trouble"), [(404, False), (200, True), (500, False)])
def test_other_answers_pass(status: int, trouble: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if trouble:
            away.note("It went well in the end.")
        await respond(send, status)

    assert [message.get("status") for message in serve(app)] == [status, None]


def test_other_exceptions_pass() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(app)


def test_trouble_of_one_request_is_not_the_next_ones() -> None:
    async def first(scope: Any, receive: Any, send: Any) -> None:
        away.note("Try again.")
        await respond(send, 500)

    async def second(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, 404)

    assert serve(first)[0]["status"] == 429
    assert serve(second)[0]["status"] == 404
