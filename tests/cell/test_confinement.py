"""Hostile code in tenant A's instance, with B, the zygote and the data folder beside it.

Every attack is tried as each kind of cell: root with a user per tenant, root with one user, and
no root at all. The same attacks without confinement show that they would work.
"""

import contextlib
import dataclasses
import os
import secrets
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import mlfleet
from mlfleet.cell import confinement, landlock, seccomp
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.admin import Admin
from tests.cell.attacks import ATTACKS
from tests.cell.zygotes import TestInstance, TestZygote, running_zygote
from tests.fixtures_postgres import free_port

NOBODY = 65534
OWN_USERS = {"a": 700_001, "b": 700_002}
QUOTA_BYTES = 128 * 1024 * 1024
ABOUT_PROCESSES = [name for name in ATTACKS if "pid" in ATTACKS[name].__code__.co_varnames]
HARMLESS_EVEN_UNCONFINED = {
    "reconnect_a_pair": "the kernel refuses it to everybody",
    "read_own_log_through_proc": "a tenant may read its own log",
    "connect_to_database": "the database decides, not the confinement; tested by itself",
}
NEEDS_ROOT = {"become_root", "mount"}


@dataclasses.dataclass
class Scene:
    """Two awake tenants of one cell, and what an attacker could know of the rest."""

    a: TestInstance
    b: TestInstance
    zygote: TestZygote
    limits: list[str]
    facts: dict[str, Any]

    def attack(self, name: str, **facts: Any) -> str:
        order = {"attack": name, "arguments": {"pid": self.b.pid, **self.facts, **facts}}
        status, _, body = self.a.call("POST", "/", order)
        assert status == 200
        return body.decode().strip('"')


def reachable_python() -> list[str]:
    """Return a command for this Python that every user can run."""
    base = f"python{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [sys.executable, f"/usr/bin/{base}", f"/usr/local/bin/{base}"]
    for candidate in candidates:
        path = Path(candidate).resolve()
        if path.exists() and all(p.stat().st_mode & stat.S_IXOTH for p in [path, *path.parents]):
            return [candidate, "-I"]
    pytest.skip(f"no {base} that users other than {os.getuid()} can run")


@contextlib.contextmanager
def listening(data: Path) -> Iterator[dict[str, Any]]:
    """Offer the sockets that an attacker looks for."""
    abstract = f"mlfleet-{secrets.token_hex(8)}"
    with (
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram,
        socket.socket(socket.AF_UNIX) as hidden,
        socket.create_server(("127.0.0.1", free_port())) as tcp,
    ):
        unix.bind(str(data / "run" / "cell.sock"))
        unix.listen()
        datagram.bind(str(data / "run" / "datagram.sock"))
        hidden.bind("\0" + abstract)
        hidden.listen()
        for name in ("cell.sock", "datagram.sock"):
            (data / "run" / name).chmod(0o666)
        yield {
            "unix_socket": str(data / "run" / "cell.sock"),
            "datagram_socket": str(data / "run" / "datagram.sock"),
            "abstract_socket": abstract,
            "other_port": tcp.getsockname()[1],
        }


def make_data(data: Path, owner: int, users: dict[str, int] | None) -> None:
    """A data folder as the fleet has it: everything closed to others, passable for own users."""
    for name in ("artifacts/a", "artifacts/b", "logs", "run", "tmp"):
        (data / name).mkdir(parents=True)
    (data / "artifacts/b/model.bin").write_text("b's model")
    (data / "secret.key").write_text("the fleet's key")
    (data / "logs/b.log").write_text("b's lines")
    for path in [data, *data.rglob("*")]:
        os.chown(path, owner, owner)
        path.chmod(0o700 if path.is_dir() else 0o600)
    if users:
        for path in (data, data / "artifacts", data / "tmp"):
            path.chmod(0o711)
        for tenant, uid in users.items():
            for path in [data / "artifacts" / tenant, *(data / "artifacts" / tenant).iterdir()]:
                os.chown(path, uid, uid)


def config(tenant: str, database: DatabaseAccess, data: Path) -> InstanceConfig:
    return InstanceConfig(
        tenant=tenant,
        database=database,
        artifact_root=str(data / "artifacts" / tenant),
        kek_passphrase=f"secret of {tenant}",
        memory_bytes=QUOTA_BYTES,
        artifact_bytes=0,
        database_idle_s=5,
        database_wait_s=5,
    )


@contextlib.contextmanager
def scene(
    admin: Admin, owner: int = 0, users: dict[str, int] | None = None, unconfined: bool = False
) -> Iterator[Scene]:
    """Wake tenants A and B in a cell of user `owner`, with users of their own if given."""
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-", dir="/tmp")))
        make_data(data / "data", owner, users)
        data.chmod(0o755)
        data = data / "data"
        paths = [str(Path(mlfleet.__path__[0]).parent), str(Path(psycopg2.__file__).parents[1])]
        tests = shutil.copytree(Path(__file__).parent, data.parent / "tests")
        command = [*reachable_python(), str(tests / "hostile_zygote.py")]
        command += (["--unconfined"] if unconfined else []) + [*paths, str(tests), "--"]
        if owner:
            command = [
                "setpriv",
                f"--reuid={owner}",
                f"--regid={owner}",
                "--clear-groups",
                *command,
            ]
        admin.clone(9001, "a")
        database = admin.access(9001, "a")
        log = data.parent / "zygote.log"
        zygote, ready = stack.enter_context(
            running_zygote(database, log, command, bool(users), data / "tmp")
        )
        logs = data / "logs"
        a, b = (
            zygote.fork(config(name, database, data), logs / f"{name}.log", (users or {}).get(name))
            for name in ("a", "b")
        )
        facts = stack.enter_context(listening(data)) | {
            "data": str(data),
            "own_root": str(data / "artifacts/a"),
            "own_folder": str(data / "tmp/x"),
            "neighbour_root": str(data / "artifacts/b"),
            "neighbour_file": str(data / "artifacts/b/model.bin"),
        }
        for one in (a, b):
            stack.callback(one.control.close)
        for one in (a, b):
            assert one.message() == {"ready": True}, (logs / "a.log").read_text()
        yield Scene(a, b, zygote, ready["limits"], facts)


@pytest.fixture(scope="module", params=["own users", "root, one user", "not root"])
def confined(request: pytest.FixtureRequest, admin: Admin) -> Iterator[Scene]:
    """A cell of each kind."""
    if os.geteuid() != 0 and request.param != "not root":
        pytest.skip("only root can start cells of other users")
    owner = NOBODY if request.param == "not root" and os.geteuid() == 0 else os.geteuid()
    users = OWN_USERS if request.param == "own users" else None
    with scene(admin, owner, users) as made:
        yield made


@pytest.fixture(scope="module")
def unconfined(admin: Admin) -> Iterator[Scene]:
    """The same cell of root, with the confinement left out."""
    with scene(admin, os.geteuid(), unconfined=True) as made:
        yield made


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - {"connect_to_database"}))
def test_an_attack_from_inside_an_instance_fails(confined: Scene, name: str) -> None:
    assert confined.attack(name).startswith("refused")


@pytest.mark.parametrize("name", sorted(ABOUT_PROCESSES))
@pytest.mark.parametrize("victim", ["zygote", "gateway"])
def test_the_cell_itself_is_as_safe_as_a_neighbour(confined: Scene, name: str, victim: str) -> None:
    pid = confined.zygote.process.pid if victim == "zygote" else os.getpid()
    assert confined.attack(name, pid=pid).startswith("refused")


@pytest.mark.parametrize("name", sorted(set(ATTACKS) - set(HARMLESS_EVEN_UNCONFINED)))
def test_the_same_attack_works_without_confinement(unconfined: Scene, name: str) -> None:
    if name in NEEDS_ROOT and os.geteuid() != 0:
        pytest.skip("only root could do this in the first place")
    assert unconfined.attack(name) == "succeeded"


def test_credentials_of_a_tenant_open_no_other_database(confined: Scene, admin: Admin) -> None:
    admin.clone(9001, "a")
    admin.clone(9002, "b")
    own, other = admin.access(9001, "a"), admin.access(9002, "b")
    own_uri = own.uri.replace("+psycopg2", "")
    assert confined.attack("connect_to_database", uri=own_uri) == "succeeded"
    for name in (other.name, "postgres", "template1", "mlfleet_catalogue"):
        uri = dataclasses.replace(own, name=name).uri.replace("+psycopg2", "")
        assert confined.attack("connect_to_database", uri=uri).startswith("refused")
    stolen_name = dataclasses.replace(other, password="a").uri.replace("+psycopg2", "")
    assert confined.attack("connect_to_database", uri=stolen_name).startswith("refused")


def test_an_instance_keeps_what_it_needs(confined: Scene) -> None:
    own = {"neighbour_root": confined.facts["own_root"], "pid": 0}
    assert confined.attack("write_artifact", **own) == "succeeded"
    assert confined.attack("list_artifacts", **own) == "succeeded"


def test_neither_neighbour_nor_cell_was_harmed(confined: Scene) -> None:
    status, _, _ = confined.b.call("POST", "/", {"attack": "fork", "arguments": {}})
    assert status == 200
    assert Path(confined.facts["neighbour_file"]).read_text() == "b's model"


def test_what_the_kernel_cannot_give_is_said_in_words() -> None:
    assert landlock.missing(7) == []
    assert any("TCP" in sentence for sentence in landlock.missing(3))
    assert any("signals" in sentence for sentence in landlock.missing(5))
    assert any("not available" in sentence for sentence in landlock.missing(0))
    assert any("share one user" in sentence for sentence in confinement.limits(False))


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_of_the_filter_stays_inside_it(machine: str) -> None:
    program = seccomp.assemble(machine, pid=42, may_use_udp=False)
    assert program[-1][0] == 0x06
    assert len(program) < 4096
    for index, (code, if_true, if_false, _) in enumerate(program):
        if code in (0x15, 0x25, 0x45):
            assert index + 1 + max(if_true, if_false) < len(program)


def test_an_artifact_root_inside_the_program_is_refused() -> None:
    inside = str(confinement.program_paths()[0] / "artifacts")
    with pytest.raises(mlfleet.errors.FleetError, match="every tenant may read"):
        confinement._refuse_root_inside_program(inside)
