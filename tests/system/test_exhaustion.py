"""A fleet that runs out of what it shares: connections of Postgres, room on the artifacts' disk."""

import contextlib
import os
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.fixtures_fleet import eventually

BODY = {"experiment_id": "0"}
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def small_fleet(fleet_starter: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fleet whose Postgres has few connections, and whose calls wait 4 s for one."""
    environment = {
        "MLFLEET_MAX_AWAKE": "4",
        "MLFLEET_HOLD_S": "25",
        "MLFLEET_DATABASE_WAIT_S": "4",
        "MLFLEET_DATABASE_IDLE_S": "1",
    }
    folder = tmp_path_factory.mktemp("exhaustion") / "data"
    return fleet_starter(folder, environment=environment)


@contextlib.contextmanager
def no_connection_left(admin_uri: str) -> Iterator[None]:
    """Take every connection of a Postgres, those that idle instances give back, too."""
    taken: list[Any] = []
    ended = threading.Event()

    def take() -> None:
        while not ended.is_set():
            try:
                taken.append(psycopg2.connect(admin_uri))
            except psycopg2.OperationalError as exc:
                assert "too many clients" in str(exc) or "remaining connection" in str(exc)
                full.set()
                ended.wait(0.02)

    full = threading.Event()
    taker = threading.Thread(target=take)
    taker.start()
    try:
        assert full.wait(20)
        yield
    finally:
        ended.set()
        taker.join()
        for connection in taken:
            connection.close()


def test_a_postgres_out_of_connections_is_waited_for_then_429(small_fleet: Any) -> None:
    tokens = {
        name: small_fleet.command("tenant", "create", name)["token"]
        for name in ("waiting", "patient")
    }
    for name, token in tokens.items():
        assert small_fleet.call(name, token, "runs/create", BODY)[0] == 200
    admin_uri = small_fleet.command("status")["database"]["admin_uri"]
    # Their connections are given back, and then taken by somebody else.
    time.sleep(3)
    with no_connection_left(admin_uri):
        for call in ("runs/create", "runs/search"):
            began = time.monotonic()
            status, answer = small_fleet.call("waiting", tokens["waiting"], call, BODY)
            assert (status, answer["error_code"]) == (429, "REQUEST_LIMIT_EXCEEDED"), call
            assert 3 < time.monotonic() - began < 20
        # One that is held when connections come back is answered.
        held = threading.Thread(
            target=lambda: statuses.append(
                small_fleet.call("patient", tokens["patient"], "runs/create", BODY)[0]
            )
        )
        statuses: list[int] = []
        held.start()
        time.sleep(1)
    held.join(30)
    assert statuses == [200]
    eventually(
        lambda: small_fleet.call("waiting", tokens["waiting"], "runs/create", BODY)[0] == 200, 10
    )


@pytest.fixture
def small_disk(small_fleet: Any) -> Iterator[tuple[str, Path]]:
    """A tenant's token and its artifact root, which is a file system of 4 MB."""
    created = small_fleet.command("tenant", "create", "full")
    tenant_id = small_fleet.command("tenant", "show", "full")["id"]
    root = small_fleet.data / "artifacts" / str(tenant_id)
    root.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "none", str(root)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here (not root)")
    yield created["token"], root
    small_fleet.command("sleep", "full")
    subprocess.run(["umount", str(root)], check=True)


def put(fleet: Any, token: str, path: str, size: int) -> tuple[int, str]:
    """Upload so many bytes to the tenant "full" through the gateway."""
    request = urllib.request.Request(
        f"{fleet.url}/full/api/2.0/mlflow-artifacts/artifacts/{path}",
        b"x" * size,
        {"Authorization": f"Bearer {token}"},
        method="PUT",
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, ""
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_a_full_disk_is_507_and_leaves_no_half_file(
    small_fleet: Any, small_disk: tuple[str, Path]
) -> None:
    token, root = small_disk
    assert put(small_fleet, token, "0/before", MEGABYTE)[0] == 200
    status, message = put(small_fleet, token, "0/big", 8 * MEGABYTE)
    assert status == 507
    assert "full" in message
    eventually(lambda: [p.name for p in root.rglob("*") if p.is_file()] == ["before"], 5)
    assert (root / "0" / "before").stat().st_size == MEGABYTE
    assert put(small_fleet, token, "0/small", 1000)[0] == 200
