"""The embedded server: real processes, started, killed, crashed and started again."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from mlfleet.database import launch
from mlfleet.database.embedded import EmbeddedPostgres
from mlfleet.errors import FleetError
from tests.fixtures_postgres import free_port


def value(uri: str, sql: str) -> object:
    connection = psycopg2.connect(uri)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None  # type: ignore[index]
    finally:
        connection.close()


@pytest.fixture
def server(tmp_path: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(tmp_path / "data", free_port(), 50, tmp_path / "logs" / "pg.log")


def wait_until(condition: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
    except FileNotFoundError:
        return True


def test_data_survives_a_restart(server: EmbeddedPostgres) -> None:
    uri = server.start()
    value(uri, "CREATE TABLE kept AS SELECT 7 AS n")
    server.stop()
    assert not server.is_running()
    assert value(server.start(), "SELECT n FROM kept") == 7
    server.stop()


def test_takes_scram_only_and_listens_on_loopback_only(postgres: str) -> None:
    assert value(postgres, "SHOW listen_addresses") == "127.0.0.1"
    assert value(postgres, "SHOW unix_socket_directories") == ""
    methods = value(postgres, "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules")
    assert methods == ["scram-sha-256"]
    with pytest.raises(psycopg2.OperationalError, match="no password supplied"):
        psycopg2.connect(postgres.replace(postgres.split(":")[2].split("@")[0], ""))


def test_keeps_what_was_committed_safe(postgres: str) -> None:
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        assert value(postgres, f"SHOW {setting}") == "on"


def test_a_taken_port_is_named(server: EmbeddedPostgres, postgres: str, tmp_path: Path) -> None:
    taken = int(postgres.rsplit(":", 1)[1].split("/")[0])
    second = EmbeddedPostgres(tmp_path / "other", taken, 20, tmp_path / "log")
    with pytest.raises(FleetError, match=rf"127\.0\.0\.1:{taken}.*in use.*another"):
        second.start()


def test_data_of_another_major_version_is_refused_with_what_to_do(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    server.stop()
    (server.data_dir / "PG_VERSION").write_text("12\n")
    with pytest.raises(FleetError, match=r"data of Postgres 12.*pg_upgrade"):
        server.start()


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("mine")
    with pytest.raises(FleetError, match="was not made by mlfleet"):
        EmbeddedPostgres(tmp_path / "data", free_port(), 20, tmp_path / "log").start()
    assert (tmp_path / "data" / "thesis.txt").read_text() == "mine"


def test_a_bad_setting_is_reported_with_postgres_own_words(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "data", free_port(), 0, tmp_path / "log")
    with pytest.raises(FleetError, match="max_connections"):
        server.start()


def test_a_crash_loses_nothing_that_was_committed(server: EmbeddedPostgres) -> None:
    uri = server.start()
    value(uri, "CREATE TABLE kept AS SELECT 7 AS n")
    assert server.pid
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.is_running())
    assert value(server.start(), "SELECT n FROM kept") == 7
    server.stop()


def test_a_stale_pid_file_whose_number_belongs_to_another_process_is_no_obstacle(
    server: EmbeddedPostgres,
) -> None:
    server.start()
    server.stop()
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (server.data_dir / "postmaster.pid").write_text(f"{stranger.pid}\n{server.data_dir}\n")
        server.start()
        server.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


_OWNER = """
import sys, threading, time
from pathlib import Path
from mlfleet.database import launch
from mlfleet.database.embedded import EmbeddedPostgres
folder, port = Path(sys.argv[1]), int(sys.argv[2])
server = EmbeddedPostgres(folder / "data", port, 20, folder / "log")
starter = threading.Thread(target=server.start)   # a thread that ends must not take it along
starter.start()
starter.join()
time.sleep(0.3)
print(server.pid, server.is_running(), flush=True)
time.sleep(600)
"""


def _owner(folder: Path, port: int, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", _OWNER, str(folder), str(port)],
        stdout=subprocess.PIPE, text=True, cwd="/",
    )  # fmt: skip


def test_a_killed_parent_leaves_no_server_behind(tmp_path: Path) -> None:
    owner = _owner(tmp_path, free_port())
    assert owner.stdout
    pid, running = owner.stdout.readline().split()
    assert running == "True"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    wait_until(lambda: gone(int(pid)))


def test_a_server_left_on_the_folder_is_stopped_before_a_new_one_starts(
    tmp_path: Path,
) -> None:
    port = free_port()
    owner = _owner(tmp_path, port)
    assert owner.stdout
    pid = int(owner.stdout.readline().split()[0])
    try:
        server = EmbeddedPostgres(tmp_path / "data", free_port(), 20, tmp_path / "log")
        server.start()
        assert gone(pid)
        server.stop()
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="every other test already runs as a non-root user")
@pytest.mark.parametrize("identity", ["namespace:1", "user:65534"])
def test_an_ordinary_user_can_run_it(identity: str) -> None:
    """In a namespace the program is readable whatever its folder's mode; for real it may not be."""
    if identity.startswith("user:"):
        reachable = subprocess.run(
            _as(identity, sys.executable, "-c", "import mlfleet"), check=False, stderr=-3
        )
        if reachable.returncode != 0:
            pytest.skip("uid 65534 may not read this checkout (a parent folder is closed)")
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    if identity.startswith("user:"):
        os.chown(folder, 65534, 65534)
    try:
        owner = _owner(folder, free_port(), _as(identity))
        assert owner.stdout
        line = owner.stdout.readline()
        owner.kill()
        owner.wait()
        owner.stdout.close()
        assert line.endswith("True\n")
        wait_until(lambda: gone(int(line.split()[0])))
    finally:
        shutil.rmtree(folder)


def _as(identity: str, *command: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", launch.__file__, identity, str(os.getpid()), *command)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to hand a folder to another user")
def test_as_root_a_folder_of_another_user_is_served_as_that_user(tmp_path: Path) -> None:
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    home.chmod(0o711)
    (home / "data").mkdir(mode=0o700)
    os.chown(home / "data", 65534, 65534)
    server = EmbeddedPostgres(home / "data", free_port(), 20, home / "log")
    try:
        server.start()
        assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
        assert (server.data_dir / "PG_VERSION").stat().st_uid == 65534
    except FleetError as exc:
        # The program's own folder may be closed to that user; then the sentence must say so.
        assert "cannot pass" in str(exc)
    finally:
        server.stop()
        shutil.rmtree(home)
