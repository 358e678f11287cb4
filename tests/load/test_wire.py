"""A user's connection: kept alive, opened again when it must be, and never an exception."""

import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mlfleet.load.swarm.wire import Answer, Connection, Server

HANG_UP = b""


class Peer:
    """A server that answers each request with the next of its answers, byte for byte."""

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while self._answers:
            connection, _ = self._listener.accept()
            self.connections += 1
            with connection:
                while self._answers and (request := self._read(connection)):
                    self.requests.append(request)
                    answer = self._answers.pop(0)
                    connection.sendall(answer)
                    if answer == HANG_UP or b"bye" in answer:
                        break

    @staticmethod
    def _read(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return data
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(body) < length:
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def close(self) -> None:
        self._listener.close()


def reply(body: bytes = b"ok", *headers: str, status: int = 200) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def talking(*answers: bytes, token: str | None = "t") -> Iterator[tuple[Peer, Connection]]:
    peer = Peer(list(answers))
    connection = Connection(Server(f"http://127.0.0.1:{peer.port}/team/", token), patience_s=2)
    yield peer, connection
    connection.close()
    peer.close()


def test_requests_of_a_user_share_one_connection_and_look_like_a_stock_clients() -> None:
    with talking(reply(), reply()) as (peer, connection):
        assert connection.ask("GET", "/api/x").status == 200
        answer = connection.ask("POST", "/api/y", b"{}", "Content-Type: application/json\r\n")
    assert answer == Answer(200, b"ok")
    assert peer.connections == 1
    get, post = peer.requests
    assert get.startswith(b"GET /team/api/x HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n" % peer.port)
    assert b"\r\nAuthorization: Bearer t\r\n" in get
    assert b"\r\nUser-Agent: mlflow-python-client/3.17.2\r\n" in get
    assert b"Content-Length" not in get
    assert post.endswith(b"\r\nContent-Length: 2\r\n\r\n{}")


def test_without_a_token_nothing_is_authorized() -> None:
    with talking(reply(), token=None) as (peer, connection):
        connection.ask("GET", "/")
    assert b"authorization" not in peer.requests[0].lower()


@pytest.mark.parametrize("end", [reply(b"bye"), reply(b"ok", "Connection: close", "x: bye")])
def test_a_connection_that_the_server_closed_is_opened_again_unseen(end: bytes) -> None:
    with talking(end, reply()) as (peer, connection):
        assert connection.ask("GET", "/1").status == 200
        # Until the end of the connection has arrived here.
        if connection._socket is not None:
            connection._socket.settimeout(2)
            assert connection._socket.recv(1, socket.MSG_PEEK) == b""
        assert connection.ask("GET", "/2").status == 200
    assert peer.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        HANG_UP,
        b"HTTP/1.1 200 X\r\nContent-Length: 10\r\n\r\nbye",
        b"HTTP/1.1 200 X\r\nConte bye",
        b"SSH-2.0 bye\r\n\r\n",
    ],
)
def test_an_answer_that_does_not_come_whole_is_none_and_the_next_is_asked_anew(
    answer: bytes,
) -> None:
    with talking(answer, reply()) as (peer, connection):
        lost = connection.ask("POST", "/1", b"x")
        assert lost.status == 0
        assert lost.problem
        assert connection.ask("GET", "/2") == Answer(200, b"ok")
    assert peer.connections == 2
    assert len(peer.requests) == 2


def test_a_server_that_is_not_there_is_an_answer_that_never_came() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    answer = Connection(Server(f"http://127.0.0.1:{port}", None)).ask("GET", "/")
    assert answer.status == 0
    assert "ConnectionRefusedError" in answer.problem


def test_a_server_that_says_nothing_is_waited_for_as_long_as_patience_lasts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        connection = Connection(Server(f"http://127.0.0.1:{port}", None), patience_s=0.2)
        answer = connection.ask("GET", "/")
    assert answer.status == 0
    assert "timed out" in answer.problem


def test_wake_retry_after_and_coding_are_understood() -> None:
    body = gzip.compress(b"hello")
    with talking(
        reply(b"", "Server-Timing: wake;dur=112.5", "Retry-After: 1", status=429),
        reply(body, "Content-Encoding: gzip"),
    ) as (_, connection):
        assert connection.ask("GET", "/") == Answer(429, b"", 0.1125, 1.0)
        assert connection.ask("GET", "/").body == b"hello"


def test_a_large_body_arrives_whole() -> None:
    body = bytes(range(256)) * 20_000
    with talking(reply()) as (peer, connection):
        assert connection.ask("PUT", "/file", body).status == 200
    assert peer.requests[0].endswith(body)
