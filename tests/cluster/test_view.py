"""What is written to objects of what the catalogue knows: differences, each until it is written."""

import datetime
from collections.abc import Iterable

import pytest

from mlfleet.cluster.view import View
from mlfleet.errors import DatabaseAwayError

NOON = datetime.datetime(2030, 1, 2, 12, 0, 0, 900_000, datetime.UTC)
WOKEN = "2030-01-02T12:00:00Z"


class Log:
    """A catalogue as a list of changes and one of wakes; may be away after its first answer."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str]] = []
        self.wakes: list[str] = []
        self.is_half_away = False

    def changed_since(self, cursor: int | None) -> tuple[Iterable[str], int]:
        since = len(self.changes) if cursor is None else cursor
        return [name for name, _ in self.changes[since:]], len(self.changes)

    def states(self, names: Iterable[str]) -> dict[str, str]:
        if self.is_half_away:
            raise DatabaseAwayError("away")
        return {name: state for name, state in self.changes if name in set(names)}

    def woken_since(self, cursor: int) -> tuple[dict[str, datetime.datetime], int]:
        return dict.fromkeys(self.wakes[cursor:], NOON), len(self.wakes)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def view(log: Log) -> View:
    view = View(log)
    view.begin()
    assert view.changes() == {}
    return view


def test_what_a_tenant_shows_already_is_not_written(log: Log, view: View) -> None:
    assert view.settled("a", "registered") == {"state": "registered"}
    log.changes += [("a", "registered"), ("b", "ready")]
    assert view.changes() == {"b": {"state": "ready"}}


def test_a_change_stays_due_until_it_is_written_and_the_newest_counts(log: Log, view: View) -> None:
    log.changes.append(("a", "ready"))
    assert view.changes() == {"a": {"state": "ready"}}
    log.changes.append(("a", "deleting"))
    log.wakes.append("a")
    assert view.changes() == {"a": {"state": "deleting", "lastWake": WOKEN}}
    view.was_written("a", {"state": "deleting", "lastWake": WOKEN})
    assert view.changes() == {}


def test_a_catalogue_that_goes_away_in_between_loses_no_change(log: Log, view: View) -> None:
    log.changes.append(("a", "ready"))
    log.is_half_away = True
    with pytest.raises(DatabaseAwayError):
        view.changes()
    log.is_half_away = False
    assert view.changes() == {"a": {"state": "ready"}}


def test_wakes_from_before_the_start_are_shown_when_a_tenant_is_settled(log: Log) -> None:
    log.wakes.append("a")
    view = View(log)
    view.begin()
    assert view.settled("a", "ready") == {"state": "ready", "lastWake": WOKEN}
    assert view.changes() == {}
    view.forget("a")
    assert view.settled("a", "registered") == {"state": "registered"}
