"""Breaking a fleet on purpose: the order of things with a clock of our own, and a real fleet."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlfleet.errors import FleetError
from mlfleet.load import cutting, events, harm
from mlfleet.load.chaos import Strike
from mlfleet.load.processes import read
from mlfleet.load.victims import Victim, Victims
from mlfleet.runtime.folder import DataFolder
from tests.fixtures_fleet import eventually, is_alive

KINDS: tuple[Any, ...] = (
    "instance",
    "zygote",
    "connections",
    "sessions",
    "gateway",
    "postgres stop",
    "postgres kill",
)


class Clock(harm.Clock):
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def quiet(_kind: str, _detail: str) -> None:
    """Tell nobody."""


def test_each_strike_comes_at_its_time() -> None:
    clock, seen = Clock(), []
    plan = [Strike(1.0, "instance", 0.1), Strike(2.5, "gateway", 0.2)]

    def strike(one: Strike) -> str:
        seen.append((clock.now() - 100.0, one.kind))
        return "somebody"

    outcomes = harm.carry_out(plan, strike, quiet, clock)
    assert seen == [(1.0, "instance"), (2.5, "gateway")]
    assert [outcome.late_s for outcome in outcomes] == [0, 0]


def test_a_strike_waits_until_somebody_is_there() -> None:
    clock = Clock()

    def strike(_: Strike) -> str | None:
        return "instance of demo" if clock.now() > 105 else None

    [outcome] = harm.carry_out([Strike(1.0, "instance", 0.1)], strike, quiet, clock)
    assert outcome.hit == "instance of demo"
    assert 4 < outcome.late_s < 4.5


def test_a_strike_that_never_finds_anybody_is_counted_as_missed() -> None:
    told: list[str] = []
    plan = [Strike(1.0, "instance", 0.1), Strike(2.0, "zygote", 0.1)]
    outcomes = harm.carry_out(plan, lambda _: None, lambda kind, _: told.append(kind), Clock())
    assert [outcome.hit for outcome in outcomes] == [None, None]
    assert told == ["missed instance", "missed zygote"]


def test_a_fleet_that_does_not_come_back_is_not_waited_for_without_end() -> None:
    assert harm.wait_until_well(lambda: False, Clock()) is None
    assert harm.wait_until_well(lambda: True, Clock()) == 0


def test_events_of_several_processes_are_read_in_order(tmp_path: Path) -> None:
    events.Events(tmp_path).add("gateway", "second", now=2.0)
    events.Events(tmp_path).add("instance", "first", now=1.0)
    assert [event["detail"] for event in events.read(tmp_path)] == ["first", "second"]


def test_a_process_whose_number_was_given_anew_is_not_hit() -> None:
    with sleeping() as process:
        found = read(process.pid)
        assert found is not None
        earlier = Victim(type(found)(**{**vars(found), "started_s": found.started_s - 1}), "x")
        assert not earlier.end()
        assert process.poll() is None
        assert Victim(found, "x").end(signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM


@contextlib.contextmanager
def sleeping(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process of ours that sleeps, with these words in its command line."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_only_connections_of_clients_are_cut() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        other, its_end = socket.socketpair()
        with client, accepted, other, its_end:
            assert cutting.open_connections(os.getpid(), port) == [accepted.fileno()]
            wrong = [server.fileno(), client.fileno(), other.fileno(), 9999]
            assert cutting.reset(os.getpid(), port, wrong) == 0
            assert cutting.reset(os.getpid(), port, [accepted.fileno()]) == 1
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            other.sendall(b"x")
            assert its_end.recv(1) == b"x"


@pytest.fixture(scope="module")
def broken_fleet(fleet_starter: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fleet with one tenant that is written to all the time."""
    return fleet_starter(tmp_path_factory.mktemp("harm") / "data")


class Writer:
    """Creates runs one after the other, on one connection at a time, and keeps what was told."""

    def __init__(self, fleet: Any) -> None:
        self._fleet = fleet
        self._token = fleet.command("tenant", "create", "struck")["token"]
        self.acknowledged: list[str] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._is_over.is_set():
            with contextlib.suppress(OSError):
                self.create()
            time.sleep(0.01)

    def create(self) -> bool:
        """Create one run; return whether it was acknowledged."""
        body = {"experiment_id": "0", "start_time": 1}
        status, answer = self._fleet.call("struck", self._token, "runs/create", body)
        if status == 200:
            self.acknowledged.append(answer["run"]["info"]["run_id"])
        return status == 200


def test_a_struck_fleet_recovers_and_has_lost_nothing(broken_fleet: Any) -> None:
    striker = harm.Striker(DataFolder(broken_fleet.data))
    # Looks like an instance, but is nobody's.
    with sleeping("mlfleet.cell.zygote") as stranger, Writer(broken_fleet) as writer:
        eventually(lambda: writer.acknowledged)
        plan = [Strike(0.2 + 0.8 * number, kind, 0.5) for number, kind in enumerate(KINDS)]
        idle = socket.create_connection(("127.0.0.1", broken_fleet.port))
        with idle:
            outcomes = harm.carry_out(plan, striker.strike, quiet)
        assert [outcome.strike.kind for outcome in outcomes if outcome.hit] == list(KINDS)
        assert harm.wait_until_well(striker.is_well) is not None
        before = len(writer.acknowledged)
        eventually(lambda: len(writer.acknowledged) > before + 5, 30)
        assert stranger.poll() is None
    assert set(writer.acknowledged) <= stored_runs(broken_fleet)


def stored_runs(fleet: Any) -> set[str]:
    """Return the runs in all tenants' databases."""
    from mlfleet.database.connect import connect

    uri = json.loads((fleet.data / "fleet.json").read_text())["admin_uri"]
    found: set[str] = set()
    with contextlib.closing(connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname ~ '^mlfleet_t[0-9]+$'")
        names = [name for (name,) in cursor.fetchall()]
    for name in names:
        with contextlib.closing(connect(uri, name)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT run_uuid FROM runs")
            found |= {run_id for (run_id,) in cursor.fetchall()}
    return found


def test_an_instance_that_outlived_its_zygote_can_still_be_hit(broken_fleet: Any) -> None:
    victims = Victims(DataFolder(broken_fleet.data))
    broken_fleet.command("wake", "struck")
    eventually(lambda: victims.of("zygote"), 30)[0].end()
    [instance] = eventually(lambda: victims.of("instance"))
    assert instance.name == "instance of struck"
    assert instance.end()
    eventually(lambda: not is_alive(instance.process.pid))


def test_the_command_says_what_it_struck(broken_fleet: Any, tmp_path: Path) -> None:
    broken_fleet.command("wake", "struck")
    options = ("--kills", 1, "--restarts", 0, "--cuts", 0, "--time", "2s", "--run", tmp_path)
    answer = broken_fleet.command("load", "chaos", *options)
    assert answer["struck"] == {"instance": 1} and answer["missed"] == 0
    kinds = [event["kind"] for event in events.read(tmp_path)]
    assert kinds == ["chaos", "instance", "chaos"]


def test_a_postgres_of_the_users_own_is_not_restarted(broken_fleet: Any) -> None:
    class External(harm.Striker):
        def __init__(self) -> None:
            super().__init__(DataFolder(broken_fleet.data))
            self._victims.postmasters = lambda: []  # type: ignore[method-assign]

    with pytest.raises(FleetError, match="--restarts 0"):
        External().check([Strike(1, "postgres stop", 0.5)])
