"""What a gateway does with HTTP that is broken, hostile, or too much."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable

import pytest

from tests.fixtures_gateway import EchoCell, until

GOOD = "Host: localhost\r\nAuthorization: Bearer mlf_demo_token\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /demo/x HTTP/1.1\r\n\r\n", 400),
        ("GET /demo/x HTTP/1.0\r\n\r\n", 400),
        (f"GET /demo/x HTTP/1.1\r\nHost: evil\r\n{GOOD}\r\n", 400),
        (f"GET /demo/x HTTP/1.1\r\nHost:\r\n{GOOD[17:]}\r\n", 400),
        (f"GET http://localhost/demo/x HTTP/1.1\r\n{GOOD}\r\n", 400),
        (f"CONNECT demo:443 HTTP/1.1\r\n{GOOD}\r\n", 400),
        (f"GET demo HTTP/1.1\r\n{GOOD}\r\n", 400),
        (f"GET /demo/{'x' * 100_000} HTTP/1.1\r\n{GOOD}\r\n", 414),
        (f"GET /demo/x HTTP/1.1\r\n{GOOD}X-Long: {'x' * 100_000}\r\n\r\n", 431),
        (f"GET /demo/x HTTP/1.1\r\n{GOOD}{'X-Many: 1' * 1}\r\n" + "A: b\r\n" * 500 + "\r\n", 431),
        (f"GET /demo/\u00e4 HTTP/1.1\r\n{GOOD}\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        ("GARBAGE\r\n\r\n", 400),
    ],
)
def test_a_malformed_head_is_refused_in_one_line(
    echo_cell: EchoCell, request_text: str, status: int
) -> None:
    echo_cell.catalogue.put("demo")
    received = echo_cell.raw(request_text.encode())
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0].split(b" ")[1] == str(status).encode(), received
    assert b"connection: close" in head
    assert b'"error_code"' in body
    assert len(body) < 500
    assert b"\\n" not in body


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5,5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
    ],
)
def test_nothing_can_be_smuggled_in_a_body(echo_cell: EchoCell, framing: str) -> None:
    echo_cell.catalogue.put("demo")
    smuggled = "0\r\n\r\nGET /demo/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"POST /demo/x HTTP/1.1\r\n{GOOD.replace('close', 'keep-alive')}{framing}\r\n"
    received = echo_cell.raw((head + smuggled).encode())
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    assert echo_cell.awake() == []


@pytest.mark.parametrize(
    "chunks", ["zz\r\nhello\r\n", "5\r\nhelloXX", "-1\r\n", "fffffffffffffffff\r\n"]
)
def test_bad_chunks_end_the_request(echo_cell: EchoCell, chunks: str) -> None:
    token = echo_cell.catalogue.put("demo")
    assert echo_cell.get("/demo/x", token).status == 200
    head = f"POST /demo/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n"
    received = echo_cell.raw((head + chunks).encode())
    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"HTTP/1.1") == 1
    assert echo_cell.get("/demo/x", token).status == 200


def test_a_body_over_the_limit_is_a_413(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(max_body_bytes=3_000_000)
    token = cell.catalogue.put("demo")
    assert cell.request("PUT", "/demo/x", token, body=b"x" * 3_000_000).status == 200
    started = time.monotonic()
    head = f"PUT /demo/x HTTP/1.1\r\n{GOOD}Content-Length: 3000001\r\n\r\n"
    received = cell.raw(head.encode())
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"3000000" in received
    assert time.monotonic() - started < 8
    head = f"PUT /demo/x HTTP/1.1\r\n{GOOD}Transfer-Encoding: chunked\r\n\r\n"
    piece = b"100000\r\n" + b"x" * 1048576 + b"\r\n"
    assert cell.raw(head.encode() + piece * 3).startswith(b"HTTP/1.1 413 ")


def test_a_head_that_comes_byte_by_byte_is_cut_off(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(head_s=0.5)
    cell.catalogue.put("demo")
    with socket.create_connection(("127.0.0.1", cell.port), 5) as sock:
        started = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /demo/x HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 1000:
                sock.sendall(bytes([byte]))
                time.sleep(0.02)
                if time.monotonic() - started > 1.5:
                    break
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 3


def test_a_body_that_stops_coming_is_cut_off(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(client_idle_s=0.4)
    token = cell.catalogue.put("demo")
    cell.get("/demo/x", token)
    for length in (10, 5_000_000):
        head = f"PUT /demo/x HTTP/1.1\r\n{GOOD}Content-Length: {length}\r\n\r\nhello"
        assert cell.raw(head.encode()).startswith(b"HTTP/1.1 408 ")
    [instance] = cell.admin("GET", "/status")["awake"]
    assert instance["in_flight"] == 0


def test_thousands_of_idle_connections_are_held_and_hurt_nobody(
    echo_cells: Callable[..., EchoCell],
) -> None:
    # Client and gateway share this process, so each connection takes two descriptors.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = min(9_000, (hard - 500) // 2)
    cell = echo_cells()
    token = cell.catalogue.put("demo")
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.ExitStack() as stack:
        idle = []
        for _ in range(number):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", cell.port)))
            sock.sendall(request)
            idle.append(sock)
        assert cell.get("/demo/x", token).status == 200
        for sock in idle:
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        for sock in (idle[0], idle[-1]):
            sock.sendall(request)
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_leaves_while_held_leaves_nothing_behind(
    echo_cells: Callable[..., EchoCell],
) -> None:
    cell = echo_cells(max_awake=1)
    token = cell.catalogue.put("demo")
    (cell.folder / "artifacts" / "1").mkdir(parents=True)
    (cell.folder / "artifacts" / "1" / "stuck").touch()
    head = f"GET /demo/x HTTP/1.1\r\n{GOOD}\r\n".encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", cell.port)) as sock:
            sock.sendall(head)
            until(lambda: b"mlfleet_held_requests 1.0" in cell.get("/metrics").body)
        until(lambda: b"mlfleet_held_requests 0.0" in cell.get("/metrics").body)
    assert b"mlfleet_requests_in_flight 1.0" in cell.get("/metrics").body
    [instance] = cell.admin("GET", "/status")["awake"]
    assert instance["in_flight"] == 0
    (cell.folder / "artifacts" / "1" / "stuck").unlink()
    cell.admin("POST", "/sleep/demo")
    assert cell.get("/demo/x", token).status == 200
