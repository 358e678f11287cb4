"""What the catalogue knows of tenants that their objects show: the state and the last wake.

Follows the catalogue by its change numbers, so asking costs the same for ten tenants and for ten
thousand, and no cell is asked: one at zero stays there. Remembers what the objects say, so only a
difference is written; one that could not be written stays due.
"""

import datetime
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol


class Source(Protocol):
    """What is asked of the catalogue."""

    def changed_since(self, cursor: int | None) -> tuple[Iterable[str], int]: ...
    def states(self, names: Iterable[str]) -> dict[str, str]: ...
    def woken_since(self, cursor: int) -> tuple[dict[str, datetime.datetime], int]: ...


class View:
    """State and last wake of tenants, by name; may be shared by threads."""

    def __init__(self, catalogue: Source) -> None:
        self._catalogue = catalogue
        self._changed: int | None = None
        self._woken = 0
        self._wakes: dict[str, str] = {}
        self._shown: dict[str, dict[str, Any]] = {}
        self._due: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Read all last wakes, so that tenants show them when they are settled."""
        with self._lock:
            self._read_wakes()

    def settled(self, name: str, state: str) -> dict[str, Any]:
        """Return what a tenant's status says that is settled now."""
        with self._lock:
            woken = self._wakes.get(name)
            self._shown[name] = {"state": state} | ({"lastWake": woken} if woken else {})
            return dict(self._shown[name])

    def changes(self) -> dict[str, dict[str, Any]]:
        """Return what is to be written: where rows and what objects show have parted."""
        with self._lock:
            names, cursor = self._catalogue.changed_since(self._changed)
            found: dict[str, dict[str, Any]] = {
                name: {"state": state} for name, state in self._catalogue.states(names).items()
            }
            for name in self._read_wakes():
                found.setdefault(name, {})["lastWake"] = self._wakes[name]
            self._changed = cursor  # only now: what failed above is asked again
            for name, now in found.items():
                if change := different(now, self._shown.get(name, {})):
                    self._due.setdefault(name, {}).update(change)
            return {name: dict(change) for name, change in self._due.items()}

    def was_written(self, name: str, change: Mapping[str, Any]) -> None:
        """Remember what an object shows now."""
        with self._lock:
            self._shown.setdefault(name, {}).update(change)
            self._due.pop(name, None)

    def forget(self, name: str) -> None:
        """Drop what is remembered of a tenant that is no more."""
        with self._lock:
            for memory in (self._wakes, self._shown, self._due):
                memory.pop(name, None)

    def _read_wakes(self) -> list[str]:
        woken, self._woken = self._catalogue.woken_since(self._woken)
        self._wakes.update((name, moment(at)) for name, at in woken.items())
        return list(woken)


def moment(at: datetime.datetime) -> str:
    """Return a time as Kubernetes writes it: UTC, whole seconds."""
    return at.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def different(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of `new` is not so in `old`."""
    return {key: value for key, value in new.items() if old.get(key) != value}
