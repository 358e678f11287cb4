"""Two gateways on one catalogue: the address of a tenant's old cell goes on to work."""

import hashlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from mlfleet.cell.handover import Handover, seal
from mlfleet.cell.neighbours import Neighbours
from mlfleet.cell.outside import Outside
from mlfleet.database.keys import FleetKey
from tests.fixtures_gateway import NAVIGATION, EchoCell, MemoryCatalogue, until
from tests.fixtures_postgres import free_port

KEY = FleetKey(b"k" * 32).handover_key


class Pair(NamedTuple):
    """Two cells; each tenant lives in one of them."""

    old: EchoCell
    new: EchoCell
    catalogue: MemoryCatalogue

    def moved(self) -> str:
        """Make a tenant of the new cell, and return its token."""
        return self.catalogue.put("demo", cell="cell-1")


@pytest.fixture
def pair(echo_cells: Callable[..., EchoCell]) -> Iterator[Pair]:
    ports, catalogue = (free_port(), free_port()), MemoryCatalogue()
    address = ",".join(f"cell-{n}=http://127.0.0.1:{port}" for n, port in enumerate(ports))
    old, new = (
        echo_cells(cell=f"cell-{n}", port=port, cell_address=address, catalogue=catalogue)
        for n, port in enumerate(ports)
    )
    return Pair(old, new, catalogue)


def test_the_old_address_answers_from_the_new_cell(pair: Pair) -> None:
    token = pair.moved()
    answer = pair.old.get("/demo/a%2Fb//c/%2e%2e/d?x=%20&y", token)
    echo = answer.json()
    assert (echo["path"], echo["query"]) == ("/a%2Fb//c/%2e%2e/d", "x=%20&y")
    assert (pair.old.awake(), pair.new.awake()) == ([], ["demo"])
    headers = dict(echo["headers"])
    assert headers["host"] == "localhost"
    assert headers["x-forwarded-host"] == f"127.0.0.1:{pair.old.port}"
    assert headers["x-forwarded-prefix"] == "/demo"
    assert headers["x-mlfleet-user"] == "main"
    assert not {"authorization", "x-mlfleet-handover"} & headers.keys()
    assert answer.headers["server-timing"].startswith("wake;dur=")
    assert answer.headers["content-security-policy"] == "sandbox"
    assert "x-mlfleet-cell" not in answer.headers
    assert len(re.findall("date|content-length", " ".join(answer.headers))) == 2
    assert b"mlfleet_handed_over_total 1.0" in pair.old.get("/metrics").body


def test_both_cells_serve_their_own(pair: Pair) -> None:
    token = pair.catalogue.put("demo", cell="cell-0")
    assert pair.old.get("/demo/x", token).status == 200
    assert pair.new.get("/demo/x", token).status == 200
    assert (pair.old.awake(), pair.new.awake()) == (["demo"], [])


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_of_any_size_stream_through(pair: Pair, chunked: bool) -> None:
    token = pair.moved()
    piece, pieces = os.urandom(1048576), 40
    headers = {} if chunked else {"Content-Length": str(len(piece) * pieces)}
    answer = pair.old.request(
        "PUT", "/demo/f", token, body=(piece for _ in range(pieces)), headers=headers
    )
    assert answer.json()["body_sha256"] == hashlib.sha256(piece * pieces).hexdigest()
    assert len(pair.old.get("/demo/big?mb=40", token).body) == 40 * 1048576


def test_a_refusal_before_the_end_of_the_body_comes_back(pair: Pair) -> None:
    token = pair.moved()
    head = (
        f"PUT /demo/refuse HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        "Content-Length: 6291456\r\n\r\n"
    )
    assert b" 413 " in pair.old.raw(head.encode() + b"x" * 3145728).split(b"\r\n")[0]


def test_nobody_is_woken_anywhere_without_a_token(pair: Pair) -> None:
    pair.moved()
    assert pair.old.get("/demo/x").status == 401
    assert pair.old.get("/demo/x", "wrong").status == 401
    assert pair.old.get("/demo/health").status == 200
    assert pair.old.awake() == pair.new.awake() == []
    assert b"mlfleet_handed_over_total 0.0" in pair.old.get("/metrics").body


def test_the_new_cell_asks_for_the_token_again(pair: Pair) -> None:
    pair.moved()
    headers = {"X-Mlfleet-Handover": papers("cell-1")}
    assert pair.new.get("/demo/x", headers=headers).status == 401
    assert pair.new.get("/demo/x", "wrong", headers=headers).status == 401


def papers(to: str, key: str = KEY) -> str:
    return seal(Handover("cell-0", to, "", Outside("localhost", "http", "1.2.3.4")), key)


def test_a_handed_over_request_never_goes_in_circles(pair: Pair) -> None:
    token = pair.catalogue.put("demo", cell="cell-9")
    answer = pair.new.get("/demo/x", token, headers={"X-Mlfleet-Handover": papers("cell-1")})
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.json()["message"] == (
        "Tenant 'demo' is moving and does not live in cell 'cell-1' any more; try again"
    )
    assert b"mlfleet_handed_over_total 0.0" in pair.new.get("/metrics").body


def test_papers_that_no_cell_wrote_are_refused(pair: Pair) -> None:
    token = pair.moved()
    for forged in (papers("cell-1", "guess"), papers("cell-0"), "x", ""):
        answer = pair.new.get("/demo/x", token, headers={"X-Mlfleet-Handover": forged})
        assert answer.status == 403, forged
    assert pair.new.awake() == []


def test_a_browser_on_the_tenants_own_host_stays_logged_in(pair: Pair) -> None:
    token = pair.moved()
    host = f"demo.localhost:{pair.old.port}"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    login = pair.old.request(
        "POST", "/.mlfleet/login", body=f"token={token}&next=/", headers=form, host=host
    )
    cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0]}
    page = pair.old.get("/", headers=NAVIGATION | cookie, host=host)
    assert page.status == 200
    assert (page.json()["tenant"], page.json()["path"]) == ("demo", "/")
    assert dict(page.json()["headers"])["x-forwarded-host"] == host
    own, foreign = {"Origin": f"http://{host}"}, {"Origin": "http://evil.example"}
    post = ("POST", "/ajax-api/x")
    assert pair.old.request(*post, body="", headers=cookie | own, host=host).status == 200
    assert pair.old.request(*post, body="", headers=cookie | foreign, host=host).status == 403
    assert pair.new.awake() == ["demo"]
    redirect = pair.old.get("/demo/redirect", token)
    assert redirect.headers["location"] == "/demo/elsewhere?x=1"


def test_a_cell_that_cannot_be_reached_is_try_again(pair: Pair) -> None:
    token = pair.moved()
    pair.new.stop()
    for method in ("GET", "POST"):
        answer = pair.old.request(method, "/demo/x", token, body=b"")
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert (
            "Cell 'cell-1', where this tenant lives, cannot be reached" in answer.json()["message"]
        )
    assert b"mlfleet_handover_failures_total 2.0" in pair.old.get("/metrics").body


def test_a_cell_that_is_not_known_is_try_again(pair: Pair) -> None:
    token = pair.catalogue.put("demo", cell="cell-9")
    answer = pair.old.get("/demo/x", token)
    assert (answer.status, answer.json()["message"]) == (
        429,
        "The address of cell 'cell-9' is not known here; try again",
    )


@pytest.mark.parametrize("status", [404, 502, 503, 504])
def test_an_answer_of_what_stands_before_a_cell_is_try_again(
    echo_cells: Callable[..., EchoCell], status: int
) -> None:
    with proxy(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nno" % status) as port:
        cell = echo_cells(cell_address=f"cell-1=http://127.0.0.1:{port}")
        answer = cell.get("/demo/x", cell.catalogue.put("demo", cell="cell-1"))
        assert answer.status == 429
        assert f"what stands before it said {status}" in answer.json()["message"]


def test_only_what_may_run_twice_is_sent_twice(echo_cells: Callable[..., EchoCell]) -> None:
    with proxy(b"") as port:
        cell = echo_cells(cell_address=f"cell-1=http://127.0.0.1:{port}")
        token = cell.catalogue.put("demo", cell="cell-1")
        for method, tries in (("GET", 2), ("POST", 1)):
            proxy.requests.clear()
            assert cell.request(method, "/demo/x", token, body=b"").status == 429
            assert len(proxy.requests) == tries


class proxy:  # noqa: N801 - used like a function
    """A server that says the same to everybody, and closes."""

    requests: ClassVar[list[bytes]] = []

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def __enter__(self) -> int:
        self.listener = socket.create_server(("127.0.0.1", free_port()))
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()
        return int(self.listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(connection.recv(65536))
                connection.sendall(self.answer)


def test_kept_connections_that_have_gone_stale_are_no_reason_to_fail(pair: Pair) -> None:
    token = pair.moved()
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: pair.old.get("/demo/slow?s=0.3", token), range(6)))
    kept = sum(map(len, neighbours(pair.old)._idle.values()))
    assert kept > 2
    transports = []
    for idle in neighbours(pair.old)._idle.values():
        for upstream, _ in idle:
            # What is sent on it now is lost, and nobody has noticed yet.
            transports.append(upstream._transport)
            upstream._transport = None
    assert pair.old.get("/demo/x", token).status == 200
    for transport in transports:
        assert transport is not None
        pair.old.loop.call_soon_threadsafe(transport.abort)


def neighbours(cell: EchoCell) -> Neighbours:
    assert cell.service.door.neighbours is not None
    return cell.service.door.neighbours


def test_a_small_answer_that_breaks_off_is_a_429(pair: Pair) -> None:
    assert pair.old.get("/demo/half", pair.moved()).status == 429


def test_a_large_answer_that_breaks_off_is_cut_visibly(pair: Pair) -> None:
    token = pair.moved()
    fields = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
    received = pair.old.raw(f"GET /demo/half?length=65537 HTTP/1.1\r\n{fields}\r\n".encode())
    assert b"200" in received.split(b"\r\n")[0]
    assert received.endswith(b"half")


def test_a_move_drains_the_old_cell_and_loses_nothing(pair: Pair) -> None:
    token = pair.catalogue.put("demo", cell="cell-0")
    stop, statuses = threading.Event(), []

    def call() -> None:
        while not stop.is_set():
            statuses.append(pair.old.get("/demo/slow?s=0.05", token).status)

    with ThreadPoolExecutor() as pool:
        [pool.submit(call) for _ in range(4)]
        until(lambda: len(statuses) > 8)
        long = pool.submit(pair.old.get, "/demo/slow?s=1", token)
        time.sleep(0.2)
        pid = pair.old.admin("GET", "/status")["awake"][0]["pid"]
        pair.catalogue.put("demo", cell="cell-1")
        until(lambda: pair.new.awake() == ["demo"])
        assert long.result().json()["pid"] == pid
        seen = len(statuses)
        until(lambda: len(statuses) > seen + 8)
        stop.set()
    assert set(statuses) == {200}
    until(lambda: pair.old.awake() == [])
    until(lambda: not Path(f"/proc/{pid}").exists())
    pair.catalogue.put("demo", cell="cell-0")
    until(lambda: pair.new.awake() == [])
    # Until the old cell has seen the change, too, the two disagree: 429.
    until(lambda: pair.old.get("/demo/x", token).status == 200)
    assert pair.old.get("/demo/x", token).json()["pid"] != pid


def test_a_client_is_told_when_a_draining_cell_closes(pair: Pair) -> None:
    token = pair.moved()
    pair.new.get("/demo/x", token)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(pair.old.get, "/demo/slow?s=0.7", token)
        until(lambda: b"in_flight 2.0" in pair.old.get("/metrics").body)
        pair.old.stop()
        assert slow.result().status == 200
        assert slow.result().headers["connection"] == "close"
