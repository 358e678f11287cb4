"""What operators ask of a gateway, and what it writes down."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fixtures_gateway import EchoCell, until


def test_the_admin_socket_wakes_sleeps_and_tells(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    assert (echo_cell.service.admin_socket.stat().st_mode & 0o777) == 0o600
    woken = echo_cell.admin("POST", "/wake/demo")
    assert woken["state"] == "awake"
    echo_cell.get("/demo/x", token)
    [one] = echo_cell.admin("GET", "/status")["awake"]
    assert (one["tenant"], one["wakes"]) == ("demo", 1)
    assert one["last_wake_s"] > 0
    assert echo_cell.admin("POST", "/sleep/demo") == {"was_awake": True}
    until(lambda: not Path(f"/proc/{woken['pid']}").exists(), wait_s=1)
    assert echo_cell.admin("POST", "/sleep/demo") == {"was_awake": False}
    assert "No tenant" in echo_cell.admin("POST", "/wake/nobody")["message"]


def test_a_deleted_tenant_is_evicted_while_awake(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(echo_cell.get, "/demo/slow?s=0.5", token)
        until(lambda: echo_cell.awake() == ["demo"])
        echo_cell.catalogue.put("demo", state="deleting")
        assert echo_cell.admin("POST", "/evict/demo") == {"was_awake": True}
        assert slow.result().status == 200
    assert echo_cell.get("/demo/x", token).status == 404
    assert echo_cell.awake() == []


def test_sigterm_finishes_what_was_accepted(echo_cell: EchoCell) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.catalogue.put("held")
    echo_cell.get("/demo/x", token)
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(echo_cell.get, "/demo/slow?s=1", token)
        held = pool.submit(echo_cell.get, "/held/slow?s=0.5", "mlf_held_token")
        until(lambda: len(echo_cell.awake()) == 2)
        idle = socket.create_connection(("127.0.0.1", echo_cell.port))
        started = time.monotonic()
        echo_cell.stop()
        assert slow.result().status == held.result().status == 200
        assert slow.result().headers["connection"] == "close"
        assert time.monotonic() - started < 3
        assert idle.recv(1) == b""
        idle.close()


def test_a_request_leaves_one_line_without_its_query(
    echo_cell: EchoCell, capfd: pytest.CaptureFixture[str]
) -> None:
    token = echo_cell.catalogue.put("demo")
    echo_cell.get("/demo/secret%22path?key=hidden", token)
    log: list[str] = []
    until(
        lambda: log.extend(capfd.readouterr().out.splitlines()) or any("secret" in x for x in log)
    )
    [line] = [one for one in log if "secret" in one]
    import json

    fields = json.loads(line)
    assert (fields["tenant"], fields["status"], fields["woke"]) == ("demo", 200, True)
    assert fields["route"] == "hot"
    assert "hidden" not in "".join(log)
    assert token not in "".join(log)
