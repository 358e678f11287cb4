"""A gateway in front of real forked instances that echo what reaches them."""

import base64
import hashlib
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlfleet.catalogue.models import Quota
from tests.fixtures_gateway import NAVIGATION, EchoCell, stored_token, until


def test_a_request_wakes_the_tenant_and_reaches_it_byte_for_byte(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    assert echo_cell.awake() == []
    answer = echo_cell.get("/demo/a%2Fb//c/%2e%2e/./d?x=%20&y", token)
    assert answer.status == 200, answer.body
    echo = answer.json()
    assert (echo["path"], echo["query"]) == ("/a%2Fb//c/%2e%2e/./d", "x=%20&y")
    assert echo["tenant"] == "demo"
    assert echo_cell.awake() == ["demo"]


def test_a_tenant_is_known_by_its_own_host_too(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    answer = echo_cell.get("/api/x", token, host=f"demo.localhost:{echo_cell.port}")
    assert (answer.json()["tenant"], answer.json()["path"]) == ("demo", "/api/x")


def test_no_spelling_of_a_path_leads_to_another_tenant(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.catalogue.put("other")
    for trick in ("/demo/../other/x", "/demo/%2e%2e/other/x", "/demo/..%2fother/x", "/demo//other"):
        answer = echo_cell.get(trick, token)
        assert answer.json()["tenant"] == "demo"
        assert answer.json()["path"] == trick.removeprefix("/demo")
    for trick in ("//other/x", "/demo%2f../other/x", "/demo%2e/x", "/DEMO/x", "/./demo/x"):
        assert echo_cell.get(trick, token).status == 404
    assert echo_cell.awake() == ["demo"]


def test_probes_and_pages_of_the_gateway_wake_nobody(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    for path in ("/healthz", "/readyz", "/metrics", "/", "/demo/health"):
        assert echo_cell.get(path).status == 200
    assert echo_cell.get("/healthz", host="10.1.2.3:8080").status == 200
    assert echo_cell.get("/demo", token).status == 307
    assert b"mlfleet_wakes_total 0.0" in echo_cell.get("/metrics").body
    assert echo_cell.awake() == []


def test_an_unknown_tenant_is_a_404_with_a_sentence(echo_cell: EchoCell) -> None:
    answer = echo_cell.get("/nobody/api/2.0/mlflow/runs/get", "token")
    assert answer.status == 404
    assert answer.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert "mlfleet tenant create nobody" in answer.json()["message"]


def test_a_tenant_made_after_it_was_asked_for_is_found(echo_cell: EchoCell) -> None:
    assert echo_cell.get("/late/x", "token").status == 404
    token = echo_cell.catalogue.put("late")
    until(lambda: echo_cell.get("/late/x", token).status == 200)


def test_a_foreign_host_is_refused_like_mlflow_does(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    for host in ("evil.example", "demo.evil.example", "a.demo.localhost", "localhost.evil"):
        answer = echo_cell.get("/demo/x", token, host=host)
        assert answer.status == 403, host
        assert "Invalid Host header" in answer.json()["message"]


# Who asks.


def test_a_token_is_taken_as_bearer_and_as_password(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    basic = base64.b64encode(f"whoever:{token}".encode()).decode()
    assert echo_cell.get("/demo/x", headers={"Authorization": f"Basic {basic}"}).status == 200
    assert echo_cell.get("/demo/x", headers={"Authorization": f"bearer {token}"}).status == 200


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Basic !!!", "Basic", "Digest x", "Bearer "]
)
def test_without_a_right_token_nobody_is_woken(
    echo_cell: EchoCell, authorization: str | None
) -> None:
    echo_cell.catalogue.put("demo")
    headers = {"Authorization": authorization} if authorization else {}
    answer = echo_cell.get("/demo/x", headers=headers)
    assert answer.status == 401
    assert answer.json()["error_code"] == "UNAUTHENTICATED"
    assert "Basic" in answer.headers["www-authenticate"]
    assert echo_cell.awake() == []


def test_a_token_of_another_tenant_is_refused(echo_cell: EchoCell) -> None:
    echo_cell.catalogue.put("demo")
    assert echo_cell.get("/demo/x", echo_cell.catalogue.put("other")).status == 401


def test_a_read_only_token_reads_and_searches_but_does_not_write(echo_cell: EchoCell) -> None:
    reader = stored_token("r", "read-only")
    echo_cell.catalogue.put("demo", tokens=(reader,))
    assert echo_cell.get("/demo/api/2.0/mlflow/runs/get?run_id=1", "r").status == 200
    assert (
        echo_cell.request("POST", "/demo/api/2.0/mlflow/runs/search", "r", body="{}").status == 200
    )
    refused = echo_cell.request("POST", "/demo/api/2.0/mlflow/runs/create", "r", body="{}")
    assert refused.status == 403
    assert refused.json()["error_code"] == "PERMISSION_DENIED"
    for method in ("PUT", "DELETE", "PATCH"):
        assert echo_cell.request(method, "/demo/x", "r", body="").status == 403


def test_an_expired_token_says_so(echo_cell: EchoCell) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    echo_cell.catalogue.put("demo", tokens=(stored_token("t", expires_at=past),))
    answer = echo_cell.get("/demo/x", "t")
    assert answer.status == 401
    assert "expired" in answer.json()["message"]


def test_a_revoked_token_is_refused_within_the_poll(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    assert echo_cell.get("/demo/x", token).status == 200
    echo_cell.catalogue.put("demo", tokens=())
    until(lambda: echo_cell.get("/demo/x", token).status == 401, wait_s=5)


def test_a_foreign_page_cannot_change_anything(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    own = {"Origin": f"http://127.0.0.1:{echo_cell.port}"}
    for origin in ("http://evil.example", "null", f"http://other.localhost:{echo_cell.port}"):
        answer = echo_cell.request("POST", "/demo/x", token, body="", headers={"Origin": origin})
        assert answer.status == 403
        assert answer.json()["message"] == "Cross-origin request blocked"
    assert echo_cell.request("POST", "/demo/x", token, body="", headers=own).status == 200


# What travels.


def test_headers_from_outside_are_taken_off_or_set_anew(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    outside = {
        "Cookie": "a=b",
        "Forwarded": "for=1.2.3.4",
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded_For": "1.2.3.4",
        "X-Mlfleet-User": "root",
        "X-Real-IP": "1.2.3.4",
        "Connection": "keep-alive, X-Secret",
        "X-Secret": "1",
        "X-Kept": "yes",
    }
    echo = echo_cell.get("/demo/x", token, headers=outside).json()
    got: dict[str, str] = dict(echo["headers"])
    assert len(got) == len(echo["headers"])
    assert got["host"] == "localhost"
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-host"] == f"127.0.0.1:{echo_cell.port}"
    assert got["x-forwarded-prefix"] == "/demo"
    assert got["x-mlfleet-user"] == "main"
    assert got["x-kept"] == "yes"
    gone = {"authorization", "cookie", "forwarded", "x-real-ip", "x-secret", "x-forwarded_for"}
    assert not gone & got.keys()


def test_an_answer_loses_what_is_ours_and_gains_a_sandbox(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    answer = echo_cell.get("/demo/get-artifact?path=x.html", token)
    assert "x-mlfleet-route" not in answer.headers
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in echo_cell.get("/demo/", token).headers
    assert "content-security-policy" not in echo_cell.get("/demo/static-files/a.js", token).headers
    for trick in ("/demo/static-files/../get-artifact", "/demo/static-files/%2e%2e/get-artifact"):
        assert echo_cell.get(trick, token).headers["content-security-policy"] == "sandbox"
    redirect = echo_cell.get("/demo/redirect", token)
    assert redirect.headers["location"] == "/demo/elsewhere?x=1"
    assert "set-cookie" not in redirect.headers
    assert b'mlfleet_write_calls_total{route="hot"}' in echo_cell.get("/metrics").body


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_streams_up_without_growing_the_gateway(
    echo_cell: EchoCell, chunked: bool
) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.get("/demo/x", token)
    piece, pieces = os.urandom(1048576), 150
    before = _peak_bytes()
    headers = {} if chunked else {"Content-Length": str(len(piece) * pieces)}
    answer = echo_cell.request(
        "PUT", "/demo/f", token, body=(piece for _ in range(pieces)), headers=headers
    )
    assert answer.json()["body_bytes"] == len(piece) * pieces
    assert answer.json()["body_sha256"] == hashlib.sha256(piece * pieces).hexdigest()
    assert _peak_bytes() - before < 50 * 1048576


def test_a_large_answer_streams_down_to_a_slow_reader(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.get("/demo/x", token)
    before = _peak_bytes()
    with socket.create_connection(("127.0.0.1", echo_cell.port), 10) as sock:
        sock.sendall(
            f"GET /demo/big?mb=200 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        time.sleep(0.5)
        assert _peak_bytes() - before < 50 * 1048576
        received = 0
        while piece := sock.recv(1048576):
            received += len(piece)
    assert received > 200 * 1048576


def test_a_refusal_before_the_end_of_the_body_reaches_the_client(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    body = b"x" * 3 * 1048576
    head = (
        f"PUT /demo/refuse HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Length: {len(body) * 2}\r\n\r\n"
    )
    assert b" 413 " in echo_cell.raw(head.encode() + body).split(b"\r\n")[0]


def test_a_client_that_asks_first_may_go_on(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    with socket.create_connection(("127.0.0.1", echo_cell.port), 10) as sock:
        sock.sendall(
            f"PUT /demo/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n".encode()
        )
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert b'"body_bytes": 5' in sock.makefile("rb").read()


def test_pipelined_and_old_requests_are_answered_in_order(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    fields = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
    first = f"GET /demo/1 HTTP/1.1\r\n{fields}\r\n"
    last = f"GET /demo/big?mb=1 HTTP/1.0\r\n{fields}\r\n"
    received = echo_cell.raw((first * 2 + last).encode())
    assert received.count(b"HTTP/1.1 200") == 3
    assert received.count(b"x" * 1048576) == 1


def test_head_has_no_body(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    answer = echo_cell.request("HEAD", "/demo/x", token)
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


# Room.


def test_the_longest_idle_tenant_makes_room(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(max_awake=2)
    tokens = {name: cell.catalogue.put(name) for name in ("aa", "bb", "cc")}
    for name in ("aa", "bb", "aa", "cc"):
        assert cell.get(f"/{name}/x", tokens[name]).status == 200
    assert sorted(cell.awake()) == ["aa", "cc"]


def test_when_nobody_is_idle_the_answer_is_try_again(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(max_awake=1)
    busy, other = cell.catalogue.put("busy"), cell.catalogue.put("other")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(cell.get, "/busy/slow?s=1", busy)
        until(lambda: cell.awake() == ["busy"])
        answer = cell.get("/other/x", other)
        assert (answer.status, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
        assert slow.result().status == 200
    until(lambda: cell.get("/other/x", other).status == 200)


def test_only_an_answer_that_waited_for_a_wake_says_how_long(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    started = time.monotonic()
    with ThreadPoolExecutor(5) as pool:
        first = list(pool.map(lambda _: echo_cell.get("/demo/slow?s=0.5", token), range(5)))
    waited_ms = (time.monotonic() - started) * 1000
    for answer in first:
        assert 0 < wake_ms(answer.headers["server-timing"]) < waited_ms - 500
    assert "server-timing" not in echo_cell.get("/demo/x", token).headers
    echo_cell.admin("POST", "/sleep/demo")
    streamed = echo_cell.request("PUT", "/demo/f", token, body=(b"x" for _ in range(3)))
    assert wake_ms(streamed.headers["server-timing"]) > 0


def test_a_page_that_waited_for_a_wake_says_so_too(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    assert wake_ms(echo_cell.get("/demo/", token, headers=NAVIGATION).headers["server-timing"]) > 0


def wake_ms(server_timing: str) -> float:
    name, _, duration = server_timing.partition(";dur=")
    assert name == "wake"
    return float(duration)


def test_many_first_requests_at_once_wake_one_instance(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: echo_cell.get("/demo/x", token).json(), range(20)))
    assert len({answer["pid"] for answer in answers}) == 1


def test_an_idle_instance_is_put_to_sleep(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(idle_s=0.4)
    token = cell.catalogue.put("demo")
    pid = cell.get("/demo/x", token).json()["pid"]
    until(lambda: cell.awake() == [])
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert cell.get("/demo/x", token).json()["pid"] != pid


def test_a_request_at_work_keeps_its_instance(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(idle_s=0.2)
    token = cell.catalogue.put("demo")
    assert cell.get("/demo/slow?s=1", token).json()["served"] == 1


def test_one_tenant_cannot_take_more_than_its_concurrency(
    echo_cells: Callable[..., EchoCell],
) -> None:
    cell = echo_cells(queue=1)
    token = cell.catalogue.put("demo", quota=Quota(memory_bytes=0, concurrency=1))
    with ThreadPoolExecutor() as pool:
        started = time.monotonic()
        running = [pool.submit(cell.get, "/demo/slow?s=0.7", token) for _ in range(3)]
        statuses = sorted(one.result().status for one in running)
    assert statuses == [200, 200, 429]
    assert time.monotonic() - started > 1.4


def test_an_instance_over_its_memory_is_replaced(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(memory_poll_s=0.2, idle_s=20.0)
    token = cell.catalogue.put("demo")
    pid = cell.get("/demo/grow?mb=150", token).json()["pid"]
    time.sleep(0.5)
    assert cell.get("/demo/x", token).json()["pid"] == pid
    cell.catalogue.put("demo", quota=Quota(memory_bytes=100 * 1048576))
    until(lambda: cell.get("/demo/x", token).json()["pid"] != pid)
    after = cell.get("/demo/x", token).json()["pid"]
    time.sleep(0.5)
    assert cell.get("/demo/x", token).json()["pid"] == after


def _peak_bytes() -> int:
    """Resident memory of this process, which the gateway is a thread of."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")
