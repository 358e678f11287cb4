"""The data folder: one fleet at a time, found by everybody else."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mlfleet.errors import AlreadyRunningError, NotRunningError
from mlfleet.runtime.folder import DataFolder, FleetFile

HOLD = """
import sys
from pathlib import Path
from mlfleet.runtime.folder import DataFolder
with DataFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    made = DataFolder(tmp_path / "fleet")
    made.create()
    return made


def test_a_second_process_is_refused_with_the_pid_of_the_first(folder):
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        assert folder.holder() == first.pid
        with pytest.raises(AlreadyRunningError, match=f"pid {first.pid}"), folder.locked():
            pass
        first.stdin.close()
        first.wait(5)
    with folder.locked():
        pass
    assert folder.holder() is None


def test_a_folder_whose_fleet_was_killed_is_free(folder):
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        first.stdout.readline()
        first.kill()
        first.wait(5)
    with folder.locked():
        pass


def test_only_the_owner_can_look_inside(folder):
    folder.write(FleetFile(url="http://x", admin_uri="postgresql://u:p@h/db", cells={}, pid=1))
    for path in (folder.path, folder.artifacts, folder.logs, folder.run):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.fleet_file.stat().st_mode) == 0o600


def test_what_is_written_is_read_while_the_fleet_runs_and_not_afterwards(folder):
    fleet = FleetFile("http://127.0.0.1:1", "postgresql://u:p@h/db", {"cell-0": "/s"}, os.getpid())
    folder.write(fleet)
    with pytest.raises(NotRunningError, match="mlfleet up"):
        folder.read()
    command = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert folder.read() == fleet
        holder.stdin.close()
        holder.wait(5)


def test_a_folder_that_is_not_there_is_no_running_fleet(tmp_path):
    with pytest.raises(NotRunningError, match="no fleet in"):
        DataFolder(tmp_path / "nothing").read()
