"""One address for all tenants: a gateway without instances, in front of cells."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.cell.front import Front
from mlfleet.database.keys import FleetKey
from mlfleet.settings import Settings
from tests.fixtures_fleet import eventually
from tests.fixtures_gateway import EchoCell, MemoryCatalogue, until
from tests.fixtures_postgres import free_port

HOST = "fleet.example.test"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Caller(EchoCell):
    """Calls the front as the fixture calls cells."""

    def __init__(self, port: int) -> None:
        self.port = port


@pytest.fixture
def cells(echo_cells: Callable[..., EchoCell]) -> list[EchoCell]:
    """Two cells with one catalogue."""
    ports, catalogue = (free_port(), free_port()), MemoryCatalogue()
    address = ",".join(f"cell-{n}=http://127.0.0.1:{port}" for n, port in enumerate(ports))
    return [
        echo_cells(cell=f"cell-{n}", port=port, cell_address=address, catalogue=catalogue)
        for n, port in enumerate(ports)
    ]


@pytest.fixture
def front(cells: list[EchoCell]) -> Iterator[Caller]:
    settings = Settings(
        port=free_port(),
        public_hosts=HOST,
        cell_address=cells[0].settings.cell_address,
        trusted_proxies="127.0.0.1",
        catalogue_poll_s=0.1,
        drain_s=5,
    )
    caller = Caller(settings.port)
    loop, made = asyncio.new_event_loop(), []

    async def run() -> None:
        made.append(Front(settings, FleetKey(b"k" * 32), cells[0].catalogue))
        await made[0].run()

    thread = threading.Thread(target=loop.run_until_complete, args=[run()])
    thread.start()
    until(lambda: caller.get("/readyz").status == 200)
    yield caller
    loop.call_soon_threadsafe(made[0].stop)
    thread.join(10)
    assert not thread.is_alive(), "the front did not stop"
    loop.close()


def test_a_tenants_own_host_leads_to_its_cell(front: Caller, cells: list[EchoCell]) -> None:
    for number in (0, 1):
        name = f"team-{number}"
        token = cells[0].catalogue.put(name, cell=f"cell-{number}")
        host = f"{name}.{HOST}"
        echo = front.get("/api/x?y", token, host=host).json()
        assert (echo["tenant"], echo["path"], echo["query"]) == (name, "/api/x", "y")
        assert dict(echo["headers"])["x-forwarded-host"] == host
        assert "x-forwarded-prefix" not in dict(echo["headers"])
        assert front.get(f"/{name}/x", token, host=f"{HOST}:443").json()["tenant"] == name
        assert cells[number].awake() == [name]


def test_it_asks_for_a_token_before_it_wakes_a_cell(front: Caller, cells: list[EchoCell]) -> None:
    cells[0].catalogue.put("demo")
    assert front.get("/x", host=f"demo.{HOST}").status == 401
    assert front.get("/x", "wrong", host=f"demo.{HOST}").status == 401
    assert front.get("/x", "wrong", host=f"nobody.{HOST}").status == 404
    assert front.get("/x", "wrong", host="demo.evil.example").status == 403
    assert front.get("/health", host=f"demo.{HOST}").body == b"OK"
    assert b"handed_over_total 0.0" in front.get("/metrics").body


def test_a_browser_logs_in_over_https_that_ends_at_the_ingress(
    front: Caller, cells: list[EchoCell]
) -> None:
    token = cells[0].catalogue.put("demo", cell="cell-1")
    host = f"demo.{HOST}"
    ingress = {"X-Forwarded-For": "1.2.3.4", "X-Forwarded-Proto": "https"}
    login = front.request(
        "POST", "/.mlfleet/login", body=f"token={token}&next=/", headers=FORM | ingress, host=host
    )
    assert login.status == 303
    assert "; Secure" in login.headers["set-cookie"]
    cookie = {"Cookie": login.headers["set-cookie"].partition(";")[0]}
    headers = dict(front.get("/", headers=cookie | ingress, host=host).json()["headers"])
    assert headers["x-forwarded-for"] == "1.2.3.4"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["x-forwarded-host"] == host
    assert "cookie" not in headers


def test_it_follows_a_tenant_that_moves(front: Caller, cells: list[EchoCell]) -> None:
    token = cells[0].catalogue.put("demo", cell="cell-0")
    assert front.get("/x", token, host=f"demo.{HOST}").status == 200
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(front.get, "/slow?s=1", token, host=f"demo.{HOST}")
        until(lambda: cells[0].admin("GET", "/status")["awake"][0]["in_flight"] == 1)
        cells[0].catalogue.put("demo", cell="cell-1")
        until(lambda: front.get("/x", token, host=f"demo.{HOST}").status == 200
              and cells[1].awake() == ["demo"])  # fmt: skip
        assert slow.result().status == 200
    until(lambda: cells[0].awake() == [])


def test_the_program_starts_says_ready_and_drains(
    tmp_path: Path, postgres: str, catalogue: Catalogue
) -> None:
    key = tmp_path / "secret.key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    caller = Caller(free_port())
    settings = Settings(
        data=tmp_path, port=caller.port, admin_uri=postgres, cell_address="http://{cell}.invalid"
    )
    command = [sys.executable, "-m", "mlfleet.cell.front"]
    with subprocess.Popen(command, env=os.environ | settings.to_environ()) as process:
        try:
            eventually(lambda: caller.get("/readyz").status == 200, 30)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
