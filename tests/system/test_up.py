"""`mlfleet up` on real processes: one per folder, data stay, nothing is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import mlfleet
from tests.fixtures_fleet import MLFLEET, RunningFleet, descendants, eventually, is_alive
from tests.fixtures_postgres import free_port

ROOT = Path(__file__).parents[2]


def create_run(fleet: RunningFleet, token: str) -> str:
    status, answer = fleet.call("demo", token, "runs/create", {"experiment_id": "0"})
    assert status == 200, answer
    return str(answer["run"]["info"]["run_id"])


def test_a_second_up_on_the_same_folder_is_refused_with_the_pid(fleet):
    answer = fleet.run("up", "--port", free_port())
    assert answer.returncode == 1
    assert f"pid {fleet.process.pid}" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_refused_with_what_to_do(fleet, tmp_path):
    answer = subprocess.run(
        [MLFLEET, "up", "--data", tmp_path / "other", "--port", str(fleet.port)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 1
    assert "--port" in answer.stderr


def test_the_data_folder_holds_no_file_that_others_can_read(fleet):
    assert fleet.data.stat().st_mode & 0o077 == 0
    for name in ("fleet.json", "secret.key"):
        assert (fleet.data / name).stat().st_mode & 0o077 == 0


def test_ctrl_c_stops_within_5_s_and_the_next_up_continues_with_all_data(fleet_starter, tmp_path):
    # As a shell starts a background job.
    shell = ("sh", "-c", 'trap "" INT; exec "$@"', "sh", MLFLEET)
    first = fleet_starter(tmp_path / "data", "--demo", command=shell)
    token = first.answer["tenant"]["token"]
    run = create_run(first, token)
    family = descendants(first.process.pid)
    assert len(family) > 3
    assert first.stop(signal.SIGINT) < 5
    assert first.process.returncode == 0
    assert not [pid for pid in family if is_alive(pid)]

    second = fleet_starter(tmp_path / "data", "--demo", port=first.port)
    assert second.answer["tenant"]["token"] is None  # shown once
    status, answer = second.call("demo", token, f"runs/get?run_id={run}")
    assert status == 200
    assert answer["run"]["info"]["run_id"] == run
    assert second.stop(signal.SIGTERM) < 5


def test_a_supervisor_killed_with_9_leaves_no_orphan_and_no_damage(fleet_starter, tmp_path):
    first = fleet_starter(tmp_path / "data", "--demo")
    token = first.answer["tenant"]["token"]
    run = create_run(first, token)
    family = descendants(first.process.pid)
    first.process.kill()
    first.process.wait()
    eventually(lambda: not [pid for pid in family if is_alive(pid)])
    assert first.run("status").returncode == 4

    second = fleet_starter(tmp_path / "data", port=first.port)
    assert second.call("demo", token, f"runs/get?run_id={run}")[0] == 200
    second.stop()


def test_a_cell_and_a_postgres_killed_with_9_are_started_again(fleet_starter, tmp_path):
    fleet = fleet_starter(tmp_path / "data", "--demo")
    token = fleet.answer["tenant"]["token"]
    create_run(fleet, token)
    for word in ("mlfleet.cell", "postgres"):
        [victim] = [
            pid for pid in descendants(fleet.process.pid)
            if parent(pid) == fleet.process.pid and word in command_line(pid)
        ]  # fmt: skip
        os.kill(victim, signal.SIGKILL)
        eventually(lambda victim=victim: not is_alive(victim))
        eventually(lambda: create_run(fleet, token), within_s=30)
    assert fleet.stop() < 5


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_the_first_run_example_works_with_the_stock_client(fleet, tmp_path):
    token = fleet.command("token", "create", "demo", "first-run")["token"]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"{fleet.url}/demo",
        "MLFLOW_TRACKING_TOKEN": token,
    }
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "first_run.py"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    link = done.stdout.split("look at it: ")[1].strip()
    run = link.rpartition("/")[2]
    _, answer = fleet.call("demo", token, f"runs/get?run_id={run}")
    metrics = {m["key"]: m["value"] for m in answer["run"]["data"]["metrics"]}
    assert metrics["test_accuracy"] > 0.85
    _, history = fleet.call("demo", token, f"metrics/get-history?run_id={run}&metric_key=test_loss")
    assert [m["step"] for m in history["metrics"]] == list(range(1000))
    _, files = fleet.call("demo", token, f"artifacts/list?run_id={run}")
    assert {"confusion.png", "report.txt"} <= {file["path"] for file in files["files"]}
    status, _ = fleet.call("demo", token, "registered-models/get?name=digits")
    assert status == 200


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all")


@pytest.fixture
def nobodys_folder():
    """A short path that user 65534 owns."""
    folder = Path("/tmp") / f"mlfleet-nobody-{os.getpid()}"
    folder.mkdir(mode=0o755)
    shutil.chown(folder, 65534, 65534)
    yield folder
    shutil.rmtree(folder)


def python_for_others(folder: Path) -> Path:
    """Return an interpreter that another user may run, with this environment's packages."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [
        Path(sys.base_prefix) / "bin" / f"python{version}",
        Path("/usr/bin/python" + version),
    ]
    wanted = f"import sys, ssl; assert sys.prefix == sys.base_prefix; open({mlfleet.__file__!r})"
    for candidate in candidates:
        # Through sh, because setpriv itself may still enter closed folders when it executes.
        command = [*NOBODY, "sh", "-c", f'exec {candidate} -I -c "{wanted}"']
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            subprocess.run([candidate, "-m", "venv", "--without-pip", folder], check=True)
            packages = folder / "lib" / f"python{version}" / "site-packages"
            borrowed = [sysconfig.get_path("purelib"), str(ROOT / "src")]
            (packages / "borrowed.pth").write_text("\n".join(borrowed))
            return folder / "bin" / "python"
    pytest.skip(f"no Python {version} that other users may run, with readable packages")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_can_run_it(fleet_starter, nobodys_folder, tmp_path):
    python = python_for_others(nobodys_folder / "venv")
    fleet = fleet_starter(
        nobodys_folder / "data",
        "--demo",
        command=(*NOBODY, python, "-c", "from mlfleet.cli import main; main()"),
        environment={"HOME": str(nobodys_folder)},
    )
    create_run(fleet, fleet.answer["tenant"]["token"])
    assert (fleet.data / "fleet.json").stat().st_uid == 65534
    family = [fleet.process.pid, *descendants(fleet.process.pid)]
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in family}
    # A process that may not be dumped belongs to root in /proc, whoever runs it.
    assert 65534 in owners
    assert all("Uid:\t65534\t65534" in Path(f"/proc/{pid}/status").read_text() for pid in family)
    assert fleet.stop() < 5


def test_what_is_said_on_stdout_is_one_document(fleet):
    assert set(fleet.answer) >= {"url", "tenant", "phases_s", "budget"}
    json.dumps(fleet.answer)
