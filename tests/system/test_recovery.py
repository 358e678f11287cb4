"""A Postgres that takes long to recover: nobody stops it, and the rest of the fleet is kept."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.fixtures_fleet import descendants, eventually, is_alive
from tests.system.test_faults import process_of


def postmaster(fleet: Any) -> int | None:
    """Return the process that Postgres' folder names."""
    pid = int((fleet.data / "postgres" / "postmaster.pid").read_text().split()[0])
    return pid if is_alive(pid) and pid in descendants(fleet.process.pid) else None


def status(fleet: Any) -> str:
    """Return what Postgres says of itself: starting or ready."""
    lines = (fleet.data / "postgres" / "postmaster.pid").read_text().splitlines()
    return lines[7].strip() if len(lines) > 7 else ""


def recover_for_as_long_as(fleet: Any, there: Path) -> None:
    """Let the next start of Postgres last until a file is gone."""
    there.touch()
    data = fleet.data / "postgres"
    command = f"while [ -e {there} ]; do sleep 0.1; done; false"
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write(f"restore_command = '{command}'\n")
    (data / "recovery.signal").touch()


def test_a_cell_that_ends_while_postgres_recovers_is_started_again(
    fleet_starter: Any, tmp_path: Path
) -> None:
    fleet = fleet_starter(tmp_path / "data", "--demo")
    recovering = tmp_path / "recovering"
    recover_for_as_long_as(fleet, recovering)
    first, cell = postmaster(fleet), process_of(fleet, "-m mlfleet.cell ")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    second = eventually(lambda: (pid := postmaster(fleet)) != first and pid, 30)
    eventually(lambda: status(fleet) == "starting", 10)
    os.kill(cell, signal.SIGKILL)
    eventually(lambda: process_of(fleet, "-m mlfleet.cell ") != cell, 15)
    assert status(fleet) == "starting"
    recovering.unlink()
    eventually(lambda: status(fleet) == "ready", 60)
    assert postmaster(fleet) == second
    token = fleet.command("token", "create", "demo", "recovered")["token"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            answer, _ = fleet.call("demo", token, "experiments/search", {"max_results": 1})
        except OSError:
            continue
        if answer == 200:
            return
        time.sleep(0.2)
    raise AssertionError("the fleet does not answer after Postgres is back")
