"""Decide who may wake, who must sleep for it, and who has slept too little work away.

Pure: what is awake and the time come in, names go out.
"""

import dataclasses
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Awake:
    """One instance that takes a place."""

    tenant: str
    in_flight: int
    """Requests it is answering or that wait for it."""
    last_used: float
    """Seconds, on the clock of the caller; the end of its last request."""
    is_leaving: bool = False
    """Already on its way to sleep: its place comes free by itself."""


@dataclasses.dataclass(frozen=True)
class Wake:
    """There is room: wake at once."""


@dataclasses.dataclass(frozen=True)
class Evict:
    """Wake after this tenant's instance is gone."""

    tenant: str


@dataclasses.dataclass(frozen=True)
class Wait:
    """A place is about to come free: look again when an instance is gone."""


@dataclasses.dataclass(frozen=True)
class Full:
    """Everybody is at work: refuse, to be tried again."""


def admit(awake: Sequence[Awake], max_awake: int, waiting: int = 0) -> Wake | Evict | Wait | Full:
    """Return what one more tenant that wants to wake must do.

    Args:
        awake: all that have a process or are about to have one.
        waiting: tenants before this one that wait for places which are about to come free.
    """
    if len(awake) < max_awake:
        return Wake()
    leaving = sum(one.is_leaving for one in awake)
    if leaving > waiting:
        return Wait()
    idle = [one for one in awake if one.in_flight == 0 and not one.is_leaving]
    if idle:
        return Evict(min(idle, key=lambda one: one.last_used).tenant)
    return Full()


def idle_tenants(awake: Iterable[Awake], now: float, idle_s: float) -> list[str]:
    """Return the tenants whose instances have had nothing to do for `idle_s`."""
    return [
        one.tenant
        for one in awake
        if one.in_flight == 0 and not one.is_leaving and now - one.last_used >= idle_s
    ]
