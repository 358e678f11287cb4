"""What a client of the gateway sees when instances, zygote or catalogue fail under it."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mlfleet.errors import DatabaseAwayError, WrongVersionError
from tests.fixtures_gateway import EchoCell, until

REPEATABLE = ("GET", "/demo/crash-once"), ("PUT", "/demo/crash-once")


@pytest.mark.parametrize(("method", "path"), REPEATABLE)
def test_a_call_that_may_be_repeated_survives_a_crash(
    echo_cell: EchoCell, method: str, path: str
) -> None:
    token = echo_cell.catalogue.put("demo")
    before = echo_cell.get("/demo/x", token).json()["pid"]
    answer = echo_cell.request(method, path, token, body="hello" if method == "PUT" else None)
    assert answer.status == 200
    assert answer.json()["pid"] != before
    assert answer.json()["body_bytes"] == (5 if method == "PUT" else 0)


def test_a_call_that_may_not_be_repeated_is_a_429_and_is_not(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.get("/demo/x", token)
    answer = echo_cell.request("POST", "/demo/crash-once", token, body="{}")
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    again = echo_cell.request("POST", "/demo/crash-once", token, body="{}")
    assert (again.status, again.json()["served"]) == (200, 1)


def test_a_call_that_was_not_read_yet_is_sent_again_whatever_it_is(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    pid = echo_cell.get("/demo/x", token).json()["pid"]
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        held = [pool.submit(echo_cell.request, "POST", "/demo/x", token, body=b) for b in "abc"]
        until(lambda: echo_cell.admin("GET", "/status")["awake"][0]["in_flight"] == 3)
        os.kill(pid, signal.SIGKILL)
        assert [one.result().status for one in held] == [200, 200, 200]


def test_an_instance_that_always_crashes_never_gives_a_5xx(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    assert echo_cell.get("/demo/crash", token).status == 429
    assert echo_cell.get("/demo/x", token).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_small_answer_that_breaks_off_is_a_429(echo_cell: EchoCell, method: str) -> None:
    token = echo_cell.catalogue.put("demo")
    answer = echo_cell.request(method, "/demo/half", token, body="{}" if method == "POST" else None)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert echo_cell.get("/demo/x", token).status == 200


def test_a_large_answer_that_breaks_off_is_cut_visibly(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    fields = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
    received = echo_cell.raw(f"GET /demo/half?length=65537 HTTP/1.1\r\n{fields}\r\n".encode())
    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.endswith(b"half")
    assert received.count(b"HTTP/1.1") == 1


def test_a_tenant_that_cannot_start_says_where_to_look(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    root = echo_cell.folder / "artifacts" / "1"
    root.mkdir(parents=True)
    (root / "broken").touch()
    answers = [echo_cell.get("/demo/x", token) for _ in range(3)]
    assert {answer.status for answer in answers} == {429}
    assert "mlfleet logs demo" in answers[-1].json()["message"]
    assert "made to fail" in (echo_cell.folder / "demo.log").read_text()
    (root / "broken").unlink()
    until(lambda: echo_cell.get("/demo/x", token).status == 200)


def test_an_instance_that_never_gets_ready_is_killed(echo_cells: Callable[..., EchoCell]) -> None:
    cell = echo_cells(hold_s=1.0)
    token = cell.catalogue.put("demo")
    root = cell.folder / "artifacts" / "1"
    root.mkdir(parents=True)
    (root / "stuck").touch()
    started = time.monotonic()
    assert cell.get("/demo/x", token).status == 429
    assert time.monotonic() - started < 8
    (root / "stuck").unlink()
    until(lambda: cell.get("/demo/x", token).status == 200)


def test_writers_lose_nothing_that_was_acknowledged_while_instances_are_killed(
    echo_cell: EchoCell,
) -> None:
    token = echo_cell.catalogue.put("demo")
    statuses: list[int] = []
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            path = "/demo/api/2.0/mlflow/runs/log-metric"
            statuses.append(echo_cell.request("POST", path, token, body="{}").status)

    def awake() -> dict[str, Any]:
        return next(iter(echo_cell.admin("GET", "/status")["awake"]), {})

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write) for _ in range(4)]
        for _ in range(5):
            with contextlib.suppress(IndexError, ProcessLookupError):
                os.kill(echo_cell.admin("GET", "/status")["awake"][0]["pid"], signal.SIGKILL)
            time.sleep(0.2)
        ended.set()
        for writer in writers:
            writer.result()
    assert len(statuses) > 50
    assert set(statuses) == {200}


def test_a_killed_zygote_is_replaced_and_instances_go_on(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    other = echo_cell.catalogue.put("other")
    pid = echo_cell.get("/demo/x", token).json()["pid"]
    zygote = echo_cell.admin("GET", "/status")["zygote_pid"]
    os.kill(zygote, signal.SIGKILL)
    assert echo_cell.get("/demo/x", token).json()["pid"] == pid
    assert echo_cell.get("/other/x", other).status == 200
    assert echo_cell.admin("GET", "/status")["zygote_pid"] != zygote
    assert echo_cell.admin("POST", "/sleep/demo") == {"was_awake": True}
    assert echo_cell.get("/demo/x", token).json()["pid"] != pid


def test_orders_that_a_dying_zygote_did_not_answer_go_to_the_next_one(echo_cell: EchoCell) -> None:
    tokens = [echo_cell.catalogue.put(f"t{n:02}") for n in range(8)]
    zygote = echo_cell.admin("GET", "/status")["zygote_pid"]
    os.kill(zygote, signal.SIGSTOP)
    with ThreadPoolExecutor(8) as pool:
        held = [pool.submit(echo_cell.get, f"/t{n:02}/x", t) for n, t in enumerate(tokens)]
        until(lambda: b"mlfleet_held_requests 8.0" in echo_cell.get("/metrics").body)
        os.kill(zygote, signal.SIGKILL)
        assert [one.result().status for one in held] == [200] * 8


def test_a_database_that_is_away_at_the_wake_is_waited_for(
    echo_cells: Callable[..., EchoCell],
) -> None:
    cell = echo_cells(hold_s=3.0)
    token = cell.catalogue.put("demo")
    cell.provide_error = DatabaseAwayError("Postgres is away")
    with ThreadPoolExecutor() as pool:
        held = pool.submit(cell.get, "/demo/x", token)
        time.sleep(0.8)
        assert not held.done()
        cell.provide_error = None
        assert held.result().status == 200
    cell.admin("POST", "/sleep/demo")
    cell.provide_error = DatabaseAwayError("Postgres is away")
    started = time.monotonic()
    answer = cell.get("/demo/x", token)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert 1.5 < time.monotonic() - started < 4


def test_data_of_another_version_is_refused_for_good_with_what_to_do(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.provide_error = WrongVersionError("serve it from a fleet with mlflow==2.9.0")
    answer = echo_cell.get("/demo/x", token)
    assert answer.status == 409
    assert "mlflow==2.9.0" in answer.json()["message"]
    assert "retry-after" not in answer.headers


def test_with_the_catalogue_away_known_tenants_work_and_unknown_ones_are_held(
    echo_cells: Callable[..., EchoCell],
) -> None:
    cell = echo_cells(hold_s=1.5)
    token, late = cell.catalogue.put("demo"), cell.catalogue.put("late")
    assert cell.get("/demo/x", token).status == 200
    cell.catalogue.is_away = True
    cell.admin("POST", "/sleep/demo")
    assert cell.get("/demo/x", token).status == 200
    with ThreadPoolExecutor() as pool:
        held = pool.submit(cell.get, "/late/x", late)
        time.sleep(0.4)
        assert not held.done()
        cell.catalogue.is_away = False
        assert held.result().status == 200
    cell.catalogue.is_away = True
    assert cell.get("/unknown/x", token).status == 429
    cell.catalogue.is_away = False
    assert cell.get("/unknown/x", token).status == 404


@pytest.mark.parametrize("jump_s", [-86400.0 * 365, 86400.0 * 365])
def test_a_wall_clock_that_jumps_reaps_nobody_and_holds_nobody(
    echo_cells: Callable[..., EchoCell], monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    cell = echo_cells(idle_s=4.0)
    token = cell.catalogue.put("demo")
    pid = cell.get("/demo/x", token).json()["pid"]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    # No request meanwhile: one would tell the new time to whoever keeps it.
    time.sleep(2)
    assert cell.admin("GET", "/status")["awake"][0]["pid"] == pid
    # And the idle one is still found idle.
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert cell.get("/demo/x", token).status == 200


def test_a_client_that_leaves_frees_its_place(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.get("/demo/x", token)
    with socket.create_connection(("127.0.0.1", echo_cell.port)) as sock:
        fields = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n"
        sock.sendall(f"GET /demo/slow?s=30 HTTP/1.1\r\n{fields}\r\n".encode())
        until(lambda: echo_cell.admin("GET", "/status")["awake"][0]["in_flight"] == 1)
    until(lambda: echo_cell.admin("GET", "/status")["awake"][0]["in_flight"] == 0)


def test_a_password_that_changed_takes_effect_on_an_awake_tenant(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    pid = echo_cell.get("/demo/x", token).json()["pid"]
    echo_cell.catalogue.put("demo", password_generation=1)
    until(lambda: echo_cell.get("/demo/x", token).json()["pid"] != pid)


def test_a_gateway_that_ends_takes_its_processes_with_it(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    pid = echo_cell.get("/demo/x", token).json()["pid"]
    zygote = echo_cell.admin("GET", "/status")["zygote_pid"]
    echo_cell.stop()
    until(lambda: not Path(f"/proc/{pid}").exists() and not Path(f"/proc/{zygote}").exists())


def test_a_long_body_that_is_half_sent_is_not_sent_again_in_part(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.get("/demo/x", token)
    body = b"x" * 3 * 1048576
    answer = echo_cell.request("PUT", "/demo/crash-once", token, body=body)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    again = echo_cell.request("PUT", "/demo/crash-once", token, body=body)
    assert (again.status, again.json()["body_bytes"]) == (200, len(body))


def test_a_client_that_leaves_does_not_end_the_wake_others_wait_for(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.provide_error = DatabaseAwayError("Postgres is away")
    head = f"GET /demo/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
    with ThreadPoolExecutor() as pool:
        with socket.create_connection(("127.0.0.1", echo_cell.port)) as first:
            first.sendall(head.encode())
            until(lambda: b"mlfleet_held_requests 1.0" in echo_cell.get("/metrics").body)
            second = pool.submit(echo_cell.get, "/demo/x", token)
            until(lambda: b"mlfleet_held_requests 2.0" in echo_cell.get("/metrics").body)
        until(lambda: b"mlfleet_held_requests 1.0" in echo_cell.get("/metrics").body)
        echo_cell.provide_error = None
        assert second.result().status == 200
