"""Faults of real processes: instance, zygote, gateway and Postgres die, tokens and tenants end."""

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.provision import Provisioner
from mlfleet.database.admin import Admin
from mlfleet.database.keys import FleetKey
from tests.fixtures_fleet import descendants, eventually, is_alive


@pytest.fixture(scope="module")
def own_fleet(fleet_starter: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fleet whose processes are killed."""
    environment = {"MLFLEET_HOLD_S": "25", "MLFLEET_DATABASE_WAIT_S": "4"}
    folder = tmp_path_factory.mktemp("faults") / "data"
    return fleet_starter(folder, environment=environment)


def process_of(fleet: Any, words: str) -> int:
    """Return the process below this fleet whose command line holds these words."""
    for pid in sorted(descendants(fleet.process.pid)):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if words in line:
                return pid
    raise AssertionError(f"no process {words!r}")


def ask_cell(fleet: Any, method: str, path: str) -> Any:
    """Call the cell's admin API."""
    connection = http.client.HTTPConnection("localhost", timeout=30)
    with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.connect(str(fleet.data / "run" / "cell-0.sock"))
        connection.request(method, path)
        return json.loads(connection.getresponse().read())


def instance_pid(fleet: Any, tenant: str) -> int | None:
    awake = ask_cell(fleet, "GET", "/status")["awake"]
    return next((one["pid"] for one in awake if one["tenant"] == tenant), None)


def rows(fleet: Any, tenant: str, statement: str) -> list[Any]:
    """Run a statement in a tenant's database as the operator."""
    admin_uri = json.loads((fleet.data / "fleet.json").read_text())["admin_uri"]
    parts = urllib.parse.urlsplit(admin_uri)
    tenant_id = fleet.command("tenant", "show", tenant)["id"]
    uri = parts._replace(path=f"/mlfleet_t{tenant_id}").geturl()
    with contextlib.closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


class Writers:
    """Clients that log one metric after the other and remember what was acknowledged."""

    def __init__(self, fleet: Any, tenant: str, token: str, number: int = 4) -> None:
        self.fleet, self.tenant, self.token, self.number = fleet, tenant, token, number
        self.acknowledged: set[tuple[int, int]] = set()
        self.refused: set[int] = set()
        self.ended = threading.Event()
        status, answer = fleet.call(tenant, token, "runs/create", {"experiment_id": "0"})
        assert status == 200, answer
        self.run = answer["run"]["info"]["run_id"]

    def __enter__(self) -> "Writers":
        self.pool = ThreadPoolExecutor(self.number)
        self.futures = [self.pool.submit(self.write, n) for n in range(self.number)]
        return self

    def __exit__(self, *exc: object) -> None:
        self.ended.set()
        for future in self.futures:
            future.result()
        self.pool.shutdown()

    def write(self, writer: int) -> None:
        step = 0
        while not self.ended.is_set():
            metric = {
                "run_id": self.run, "key": f"m{writer}", "value": step,
                "timestamp": 1, "step": step,
            }  # fmt: skip
            try:
                status, _ = self.fleet.call(self.tenant, self.token, "runs/log-metric", metric)
            except OSError:
                # The gateway itself is gone for a moment: the client tries again.
                time.sleep(0.05)
                continue
            if status == 200:
                self.acknowledged.add((writer, step))
                step += 1
            else:
                self.refused.add(status)
                time.sleep(0.05)

    def check(self, at_least: int = 20) -> None:
        """Every acknowledged row is there, and no answer was final for a passing fault."""
        assert len(self.acknowledged) >= at_least
        assert self.refused <= {429}
        stored = {
            (int(key[1:]), step)
            for key, step in rows(self.fleet, self.tenant, "SELECT key, step FROM metrics")
        }
        assert self.acknowledged <= stored


def delete(fleet: Any, name: str) -> None:
    """Delete a tenant as the command does: mark it, evict it, remove it."""
    admin_uri = json.loads((fleet.data / "fleet.json").read_text())["admin_uri"]
    catalogue, admin = Catalogue(admin_uri), Admin(admin_uri)
    key = FleetKey.from_file(fleet.data / "secret.key")
    catalogue.set_state(name, "deleting")
    ask_cell(fleet, "POST", f"/evict/{name}")
    Provisioner(catalogue, admin, key).delete(name, fleet.data / "artifacts")
    catalogue.close()
    admin.close()


def create(fleet: Any, name: str) -> str:
    return str(fleet.command("tenant", "create", name)["token"])


def test_instances_killed_in_the_middle_of_writes_lose_nothing(own_fleet: Any) -> None:
    with Writers(own_fleet, "killed", create(own_fleet, "killed")) as writers:
        for _ in range(4):
            time.sleep(0.5)
            if pid := instance_pid(own_fleet, "killed"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
    writers.check()
    assert writers.refused == set()


def test_a_killed_zygote_stops_nobody(own_fleet: Any) -> None:
    late = create(own_fleet, "late-one")
    with Writers(own_fleet, "steady", create(own_fleet, "steady")) as writers:
        pid = instance_pid(own_fleet, "steady")
        os.kill(process_of(own_fleet, "mlfleet.cell.zygote"), signal.SIGKILL)
        status, _ = own_fleet.call("late-one", late, "runs/create", {"experiment_id": "0"})
        assert status == 200
    writers.check()
    assert instance_pid(own_fleet, "steady") == pid
    assert writers.refused == set()


def test_a_killed_gateway_comes_back_and_leaves_no_instance_behind(own_fleet: Any) -> None:
    with Writers(own_fleet, "gateless", create(own_fleet, "gateless")) as writers:
        time.sleep(0.3)
        instance = instance_pid(own_fleet, "gateless")
        cell = process_of(own_fleet, "-m mlfleet.cell")
        os.kill(cell, signal.SIGKILL)
        before = len(writers.acknowledged)
        eventually(lambda: len(writers.acknowledged) > before + 10, 30)
    writers.check()
    assert instance is not None
    eventually(lambda: not is_alive(instance))


def test_a_restarted_postgres_is_waited_for(own_fleet: Any) -> None:
    with Writers(own_fleet, "patient", create(own_fleet, "patient")) as writers:
        time.sleep(0.3)
        os.kill(process_of(own_fleet, "bin/postgres"), signal.SIGKILL)
        before = len(writers.acknowledged)
        eventually(lambda: len(writers.acknowledged) > before + 20, 40)
    writers.check()


def test_a_postgres_that_stays_away_is_a_429_and_never_a_final_answer(own_fleet: Any) -> None:
    token, body = create(own_fleet, "waiting"), {"experiment_id": "0"}
    asleep = create(own_fleet, "asleep")
    assert own_fleet.call("waiting", token, "runs/create", body)[0] == 200
    cell = process_of(own_fleet, "-m mlfleet.cell")
    # A stopped supervisor starts no Postgres again.
    os.kill(own_fleet.process.pid, signal.SIGSTOP)
    try:
        postmaster = process_of(own_fleet, "bin/postgres")
        # Its backends too: one that is at work would answer a little longer.
        for pid in (postmaster, *descendants(postmaster)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with ThreadPoolExecutor() as pool:
            began = time.monotonic()
            calls = [
                pool.submit(own_fleet.call, "waiting", token, "runs/create", body),
                pool.submit(own_fleet.call, "waiting", token, "runs/search", body),
                pool.submit(own_fleet.call, "asleep", asleep, "runs/create", body),
            ]
            assert [one.result()[0] for one in calls] == [429, 429, 429]
        assert 3 < time.monotonic() - began < 45
    finally:
        os.kill(own_fleet.process.pid, signal.SIGCONT)
    for tenant, key in (("waiting", token), ("asleep", asleep)):
        eventually(
            lambda t=tenant, k=key: own_fleet.call(t, k, "runs/create", body)[0] == 200,  # type: ignore[misc]
            30,
        )
    assert is_alive(cell)


def signal_all(pids: list[int], number: int) -> None:
    """Signal all of them; a server has processes that come and go, and none may be left stopped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def test_a_frozen_postgres_is_a_429_and_nothing_hangs(own_fleet: Any) -> None:
    token, body = create(own_fleet, "frozen"), {"experiment_id": "0"}
    asleep, fresh = create(own_fleet, "dozing"), create(own_fleet, "fresh")
    for tenant, key in (("frozen", token), ("dozing", asleep)):
        assert own_fleet.call(tenant, key, "runs/create", body)[0] == 200
    ask_cell(own_fleet, "POST", "/sleep/dozing")
    postmaster = process_of(own_fleet, "bin/postgres")
    stopped = [postmaster, *descendants(postmaster)]
    signal_all(stopped, signal.SIGSTOP)
    calls = [
        ("frozen", token, "runs/create"),
        ("frozen", token, "runs/search"),
        ("dozing", asleep, "runs/create"),
        ("fresh", fresh, "runs/create"),
    ]
    try:
        with ThreadPoolExecutor() as pool:
            began = time.monotonic()
            answers = [pool.submit(own_fleet.call, *call, body) for call in calls]
            assert [one.result()[0] for one in answers] == [429, 429, 429, 429]
        assert time.monotonic() - began < 60
    finally:
        signal_all(stopped, signal.SIGCONT)
    for tenant, key, _ in calls:
        eventually(
            lambda t=tenant, k=key: own_fleet.call(t, k, "runs/create", body)[0] == 200,  # type: ignore[misc]
            30,
        )


def test_tokens_from_the_command_to_the_gateway(own_fleet: Any) -> None:
    token = create(own_fleet, "keyed")
    run = {"experiment_id": "0"}
    assert own_fleet.call("keyed", None, "runs/create", run)[0] == 401
    assert own_fleet.call("keyed", "mlf_wrong", "runs/create", run)[0] == 401
    reader = own_fleet.command("token", "create", "keyed", "reader", "--read-only")["token"]
    eventually(lambda: own_fleet.call("keyed", reader, "experiments/get?experiment_id=0")[0] == 200)
    assert own_fleet.call("keyed", reader, "runs/create", run)[0] == 403
    own_fleet.command("token", "revoke", "keyed", "reader")
    began = time.monotonic()
    eventually(lambda: own_fleet.call("keyed", reader, "experiments/get?experiment_id=0")[0] == 401)
    assert time.monotonic() - began < 5
    assert own_fleet.call("keyed", token, "runs/create", run)[0] == 200


def test_a_tenant_deleted_while_awake_leaves_nothing(own_fleet: Any) -> None:
    token = create(own_fleet, "doomed")
    tenant_id = own_fleet.command("tenant", "show", "doomed")["id"]
    with Writers(own_fleet, "doomed", token) as writers:
        eventually(lambda: len(writers.acknowledged) > 5)
        pid = instance_pid(own_fleet, "doomed")
        delete(own_fleet, "doomed")
        eventually(lambda: 404 in writers.refused)
    assert writers.refused <= {404, 429}
    assert pid is not None
    eventually(lambda: not is_alive(pid))
    assert not (own_fleet.data / "artifacts" / str(tenant_id)).exists()
    create(own_fleet, "witness")
    admin_uri = json.loads((own_fleet.data / "fleet.json").read_text())["admin_uri"]
    with contextlib.closing(psycopg2.connect(admin_uri)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles")
        assert f"mlfleet_t{tenant_id}" not in {name for (name,) in cursor.fetchall()}
