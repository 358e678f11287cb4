"""`mlfleet load trace` writes what a run can replay."""

import subprocess
from pathlib import Path

from mlfleet.load.trace import burst, trace_of
from tests.fixtures_fleet import MLFLEET


def trace(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(part) for part in (MLFLEET, "load", "trace", *arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_burst_is_written_and_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "burst.csv"
    done = trace(file, "--high", 20, "--calm", 10)
    assert done.returncode == 0, done.stderr
    assert trace_of(file.read_text(), "x") == burst(high=20, calm_s=10)
    said = trace(file, "--check").stdout
    assert said == done.stdout == f"{file}: 6978 calls in 435 s, at most 20/s\n"


def test_a_bad_file_is_said_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("t_s,rate\n0,x\n")
    done = trace(file, "--check")
    assert done.returncode == 1
    assert done.stderr == f"mlfleet: {file} line 2: '0,x' is not two numbers, time and rate\n"


def test_a_burst_that_falls_upwards_is_refused(tmp_path: Path) -> None:
    done = trace(tmp_path / "x.csv", "--low", 40)
    assert done.returncode == 1
    assert "low <= high" in done.stderr
    assert not (tmp_path / "x.csv").exists()
