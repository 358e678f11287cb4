"""Carry out a plan of harm on a running fleet, and say what was hit.

A strike that finds nobody (all asleep, the gateway still starting) waits for a victim, so that as
much is broken as was planned; only after a while it is given up and counted as missed.
"""

import contextlib
import dataclasses
import http.client
import signal
import time
import urllib.parse
from collections.abc import Callable, Iterable

from mlfleet.errors import DatabaseAwayError, FleetError
from mlfleet.load import chaos, cutting
from mlfleet.load.chaos import Strike
from mlfleet.load.victims import Victims
from mlfleet.runtime.folder import DataFolder

PATIENCE_S = 60.0
"""How long a strike waits for a victim."""
PAUSE_S = 0.1
RECOVERY_S = 60.0
"""A fleet that is not ready so long after the last strike did not recover."""

Tell = Callable[[str, str], None]
"""Takes the kind of an event and its sentence."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one strike."""

    strike: Strike
    hit: str | None
    """Who or what was hit, in words; None: nobody was there."""
    late_s: float


class Striker:
    """Strikes one fleet."""

    def __init__(self, folder: DataFolder) -> None:
        """Name the fleet.

        Raises:
            NotRunningError: it does not run.
        """
        file = folder.read()
        self._admin_uri = file.admin_uri
        self._url = urllib.parse.urlsplit(file.url)
        self._victims = Victims(folder)

    def check(self, plan: Iterable[Strike]) -> None:
        """Refuse a plan that cannot be carried out here.

        Raises:
            FleetError: it restarts a Postgres that is not the fleet's own.
        """
        kinds = {strike.kind for strike in plan}
        if kinds & set(chaos.RESTARTED) and not self._victims.postmasters():
            raise FleetError(
                "this fleet uses a Postgres of yours, which is not ours to restart: --restarts 0"
            )

    def strike(self, strike: Strike) -> str | None:
        """Break what a strike means; return what was hit, None if nobody is there now."""
        match strike.kind:
            case "connections":
                return self._cut_connections(strike)
            case "sessions":
                return self._cut_sessions(strike)
            case _:
                return self._end(strike)

    def _end(self, strike: Strike) -> str | None:
        if not (found := self._victims.of(strike.kind)):
            return None
        victim = chaos.picked(strike.pick, found)
        # Postgres reads SIGINT as "fast shutdown".
        number = signal.SIGINT if strike.kind == "postgres stop" else signal.SIGKILL
        return f"{victim.name}, pid {victim.process.pid}" if victim.end(number) else None

    def _cut_connections(self, strike: Strike) -> str | None:
        if not (gateways := self._victims.gateways()):
            return None
        pid, port = gateways[0].process.pid, self._url.port or 80
        found = cutting.open_connections(pid, port)
        with contextlib.suppress(ProcessLookupError):
            count = cutting.reset(pid, port, chaos.cut(strike.pick, found))
            return f"{count} of {len(found)} connections of clients" if count else None
        return None

    def _cut_sessions(self, strike: Strike) -> str | None:
        with contextlib.suppress(DatabaseAwayError):
            found = cutting.sessions(self._admin_uri)
            count = cutting.end_sessions(self._admin_uri, chaos.cut(strike.pick, found))
            return f"{count} of {len(found)} sessions in Postgres" if count else None
        return None

    def is_well(self) -> bool:
        """Return whether the fleet says that it can serve."""
        connection = http.client.HTTPConnection(
            self._url.hostname or "127.0.0.1", self._url.port, timeout=2
        )
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        return False


class Clock:
    """Time that passes; a test hands in another one."""

    def now(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


def carry_out(
    plan: Iterable[Strike],
    strike: Callable[[Strike], str | None],
    tell: Tell,
    clock: Clock | None = None,
) -> list[Outcome]:
    """Carry out a plan from now on; return when its last strike is done or missed.

    Args:
        plan: strikes in order of time.
        strike: breaks one thing; None means that nobody is there, and it is asked again.
        tell: told of each strike when it is done.
        clock: seconds now, and how to wait.
    """
    clock = clock or Clock()
    start = clock.now()
    outcomes = []
    for one in plan:
        clock.sleep(max(0.0, start + one.at_s - clock.now()))
        began = clock.now()
        while (hit := strike(one)) is None and clock.now() - began < PATIENCE_S:
            clock.sleep(PAUSE_S)
        outcome = Outcome(one, hit, round(clock.now() - start - one.at_s, 3))
        tell(one.kind if hit else f"missed {one.kind}", hit or "nobody was there")
        outcomes.append(outcome)
    return outcomes


def wait_until_well(is_well: Callable[[], bool], clock: Clock | None = None) -> float | None:
    """Return the seconds until a fleet serves, None if it does not within `RECOVERY_S`."""
    clock = clock or Clock()
    began = clock.now()
    while not is_well():
        if clock.now() - began > RECOVERY_S:
            return None
        clock.sleep(PAUSE_S)
    return clock.now() - began
