"""Every process of a fleet, one by one."""

import os
from pathlib import Path
from typing import Any

from mlfleet.load import census, soak
from mlfleet.load.census import Census
from mlfleet.runtime.folder import DataFolder
from tests.fixtures_fleet import eventually


def test_each_process_of_a_fleet_is_counted_and_weighed(fleet: Any, tmp_path: Path) -> None:
    fleet.command("wake", "demo")
    with Census(tmp_path, DataFolder(fleet.data), every_s=0.2):
        lines = eventually(lambda: found if len(found := census.read(tmp_path)) > 3 else None, 30)
    seen = lines[-1]["processes"].values()
    roles = {one["role"] for one in seen}
    assert roles >= {"supervisor", "gateway", "zygote", "instance", "Postgres"}
    assert str(os.getpid()) not in lines[-1]["processes"]
    assert all(one["pss_bytes"] > 0 and one["fds"] > 0 for one in lines[-1]["processes"].values())
    assert {"gateway", "instance"} <= {one.name.split()[0] for one in soak.of_processes(lines)}


def test_a_run_that_nobody_counted_has_no_lines(tmp_path: Path) -> None:
    assert census.read(tmp_path) == []
