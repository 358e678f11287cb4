"""A real zygote: what it says, what it holds, and how it ends."""

import os
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest

from mlfleet.cell import protocol, scratch, zygote_process
from mlfleet.cell.protocol import InstanceConfig, WarmOrder
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.admin import Admin
from tests.cell.zygotes import TestInstance, TestZygote, running_zygote
from tests.fixtures_fleet import eventually, is_alive


def wake(running: TestZygote, admin: Admin, folder: Path) -> TestInstance:
    admin.clone(9200, "password")
    (folder / "artifacts").mkdir(exist_ok=True)
    access = admin.access(9200, "password")
    config = InstanceConfig("t", access, str(folder / "artifacts"), "secret", 0, 0, 5, 5)
    return running.fork(config, folder / "tenant.log")


def test_it_is_single_threaded_and_knows_no_tenant(admin: Admin, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    with (
        admin.throwaway() as database,
        running_zygote(database, tmp_path / "log", temporary=temporary) as (running, ready),
    ):
        assert any("share one user" in sentence for sentence in ready["limits"])
        own = Path(f"/proc/{running.process.pid}")
        assert len(list((own / "task").iterdir())) == 1
        instance = wake(running, admin, tmp_path)
        assert instance.call("GET", "/health")[0] == 200
        # A folder of its own, taken away however the instance ends.
        assert len(list(temporary.iterdir())) == 1
        os.kill(instance.pid, signal.SIGKILL)
        running.wait_for_exit(instance.pid)
        assert list(temporary.iterdir()) == []
        environ = (own / "environ").read_bytes()
        assert b"secret" not in environ
        instance.control.close()


def test_what_a_killed_zygote_left_is_removed_by_the_next_but_not_what_is_in_use(
    admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    def grow_old() -> set[Path]:
        folders = set(temporary.iterdir())
        for folder in folders:
            os.utime(folder, (0, 0))
        return folders

    with admin.throwaway() as database:
        with running_zygote(database, tmp_path / "log", temporary=temporary) as (running, _):
            living = wake(running, admin, tmp_path)
            assert living.call("GET", "/health")[0] == 200
            [kept] = temporary.iterdir()
            killed = wake(running, admin, tmp_path)
            assert killed.call("GET", "/health")[0] == 200
            running.process.kill()
        os.kill(killed.pid, signal.SIGKILL)
        killed.control.close()
        scratch.sweep()
        assert len(list(temporary.iterdir())) == 2, "so young that one might not be locked yet"
        grow_old()
        with running_zygote(database, tmp_path / "log", temporary=temporary):
            assert set(temporary.iterdir()) == {kept}
        assert living.call("GET", "/health")[0] == 200
        living.control.close()
        eventually(lambda: not is_alive(living.pid))
        grow_old()
        scratch.sweep()
        assert list(temporary.iterdir()) == []


def test_when_the_gateway_is_gone_instances_and_zygote_end(admin: Admin, tmp_path: Path) -> None:
    with (
        admin.throwaway() as database,
        running_zygote(database, tmp_path / "log") as (running, _),
    ):
        instance = wake(running, admin, tmp_path)
        assert instance.call("GET", "/health")[0] == 200
        instance.control.close()
        running.orders.shutdown(socket.SHUT_RDWR)
        assert running.process.wait(20) == 0
        assert not Path(f"/proc/{instance.pid}").exists()


def test_a_gateway_that_goes_while_it_is_answered_leaves_no_traceback(
    admin: Admin, tmp_path: Path
) -> None:
    with (
        admin.throwaway() as database,
        running_zygote(database, tmp_path / "log") as (running, _),
        Path(os.devnull).open("wb") as nothing,
        socket.socket() as unused,
    ):
        order = protocol.ForkOrder("demo").encode()
        protocol.send_with_descriptors(running.orders, order, [unused.fileno(), nothing.fileno()])
        running.orders.close()
        assert running.process.wait(40) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_a_database_that_cannot_be_reached_ends_it_with_the_reason(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nowhere = DatabaseAccess("127.0.0.1", 1, "none", "nobody", "none")
    with ours, theirs, (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            zygote_process.command(theirs.fileno()),
            env=zygote_process.environment(),
            pass_fds=[theirs.fileno()],
            stdout=log,
            stderr=log,
        )
        ours.send(WarmOrder(nowhere).encode())
        assert process.wait(60) != 0
    assert "MLflow could not be warmed" in (tmp_path / "log").read_text()


def test_the_environment_carries_no_secret() -> None:
    environ = {"MLFLEET_ADMIN_URI": "postgresql://u:secret@h/d", "TZ": "UTC", "AWS_SECRET": "x"}
    assert set(zygote_process.environment(environ)) == {
        "TZ",
        "HOME",
        "LC_ALL",
        "MALLOC_ARENA_MAX",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
        "UV_USE_IO_URING",
    }


@pytest.mark.parametrize("uid", [None, 70_001])
def test_messages_survive_the_journey(uid: int | None) -> None:
    order = protocol.ForkOrder("demo", uid)
    assert protocol.decode_order(order.encode()) == order
    warm = WarmOrder(DatabaseAccess("h", 1, "n", "u", "p"), has_own_users=True)
    assert protocol.decode_order(warm.encode()) == warm
