"""The bridge to Flask: bodies of any size pass both ways, bounded memory, one close each."""

import asyncio
import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

from mlfleet.cell.threads import Threads
from mlfleet.cell.wsgi import SPOOL_BYTES, Wsgi, environ_of

MIB = 1024 * 1024
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/dé/x",
    "query_string": b"a=%20b",
    "http_version": "1.1",
    "headers": [(b"content-type", b"text/plain"), (b"x-twice", b"1"), (b"x-twice", b"2")],
}


async def drive(app: Any, chunks: list[bytes], leave: bool = False) -> list[Any]:
    """Run one request through a bridge; return what was sent, bodies as their length."""
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": c, "more_body": True} for c in chunks]
    messages.append({"type": "http.disconnect"} if leave else {"type": "http.request"})
    pending = iter(messages)

    async def receive() -> Any:
        return next(pending)

    async def send(message: Any) -> None:
        sent.append(
            len(message["body"])
            if message["type"] == "http.response.body"
            else (message["status"], message["headers"])
        )

    threads = Threads(2)
    try:
        await Wsgi(app, threads)(dict(SCOPE), receive, send)
    finally:
        threads.stop()
    return sent


def test_environ_is_what_starlettes_bridge_makes() -> None:
    environ = environ_of(SCOPE, None, 3)  # type: ignore[arg-type]
    assert environ["PATH_INFO"] == "/d\u00c3\u00a9/x"
    assert environ["QUERY_STRING"] == "a=%20b"
    assert environ["HTTP_X_TWICE"] == "1,2"
    assert environ["CONTENT_TYPE"] == "text/plain"
    assert environ["CONTENT_LENGTH"] == "3"
    assert "HTTP_CONTENT_TYPE" not in environ


async def test_a_large_request_body_is_spooled_and_read_whole() -> None:
    seen: list[int] = []

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"]
        assert body._rolled, "a body beyond the limit must be in a file"
        seen.append(sum(len(part) for part in iter(lambda: body.read(MIB), b"")))
        start_response("200 OK", [("X-Name", " v ")])
        return [b"ok"]

    sent = await drive(app, [b"x" * MIB] * (4 + SPOOL_BYTES // MIB))
    assert seen == [4 * MIB + SPOOL_BYTES]
    assert sent == [(200, [(b"x-name", b"v")]), 2]


async def test_a_long_answer_is_pulled_part_by_part_and_closed_once() -> None:
    closed: list[bool] = []

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return (b"x" * MIB for _ in range(64))

        def close(self) -> None:
            closed.append(True)

    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return Body()

    tracemalloc.start()
    sent = await drive(app, [])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sent[1:]) == 64 * MIB
    assert closed == [True]
    assert peak < 8 * MIB


async def test_a_client_that_left_is_not_served() -> None:
    def app(environ: Any, start_response: Any) -> Iterable[bytes]:
        raise AssertionError("nobody waits for this answer")

    assert await drive(app, [b"half"], leave=True) == []


async def test_threads_work_again_after_a_stop_and_never_exceed_their_number() -> None:
    threads = Threads(3)
    for _ in range(2):
        # Three must meet at a time, or the barrier breaks.
        meeting, names = threading.Barrier(3, timeout=5), set[int]()

        def work(number: int, meeting: threading.Barrier, names: set[int]) -> int:
            meeting.wait()
            names.add(threading.get_ident())
            return number

        answers = await asyncio.gather(*(threads.run(work, n, meeting, names) for n in range(30)))
        assert answers == list(range(30))
        assert len(names) == 3
        threads.stop()
