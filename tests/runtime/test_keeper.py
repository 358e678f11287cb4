"""A process that ends by itself is started again."""

import contextlib
import itertools
import subprocess

import pytest

from mlfleet.errors import FleetError
from mlfleet.runtime.keeper import Keeper
from mlfleet.runtime.restart import LONGEST_S


class Sleeper:
    """A real process that does nothing until it is killed."""

    def __init__(self) -> None:
        self.started = 0
        self.process: subprocess.Popen[bytes] | None = None

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.started += 1
        self.process = subprocess.Popen(["sleep", "60"])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def sleeper():
    made = Sleeper()
    made.start()
    yield made
    with contextlib.suppress(ProcessLookupError):
        made.kill()


def test_a_running_process_is_left_alone(sleeper):
    keeper = Keeper("sleeper", sleeper, now=0, say=print)
    keeper.look(now=1)
    assert sleeper.started == 1


def test_the_first_crash_is_mended_at_once(sleeper):
    keeper = Keeper("sleeper", sleeper, now=0, say=print)
    sleeper.kill()
    keeper.look(now=5)
    assert sleeper.is_running()


def test_one_that_keeps_crashing_is_tried_less_and_less_often(sleeper):
    keeper, tries = Keeper("sleeper", sleeper, now=0, say=print), []
    for second in range(60):
        if sleeper.is_running():
            sleeper.kill()
        keeper.look(now=second)
        if sleeper.is_running():
            tries.append(second)
    assert tries[0] == 0
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses == sorted(pauses)
    assert pauses[0] == 2  # it is killed one second after its start
    assert pauses[-1] == 1 + LONGEST_S


def test_a_start_that_fails_is_tried_again(sleeper, monkeypatch):
    keeper = Keeper("sleeper", sleeper, now=0, say=print)
    sleeper.kill()

    def refuse() -> None:
        raise FleetError("no port")

    with monkeypatch.context() as broken:
        broken.setattr(sleeper, "start", refuse)
        keeper.look(now=1)
    assert not sleeper.is_running()
    keeper.look(now=2)
    keeper.look(now=3)
    assert sleeper.is_running()
