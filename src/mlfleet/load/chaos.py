"""Decide what is broken in a fleet under load, and when: a plan that a seed repeats.

Pure: no clock, no process, no connection. A plan names its victims by a share of those that are
there when the time comes (0.5 of ten instances is the sixth), because who is awake depends on the
load. `harm.py` carries a plan out.
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Sequence
from typing import Literal, TypeVar

Kind = Literal[
    "instance", "zygote", "gateway", "connections", "sessions", "postgres stop", "postgres kill"
]
"""What is struck. The first three are killed with -9. Connections are those of clients, cut while
they are open; sessions are those of instances in Postgres. Postgres is told to stop, which cuts
all sessions, or is killed with -9 and must recover from its log; it comes back by itself."""
KILLED: tuple[Kind, ...] = ("instance", "zygote", "gateway")
RESTARTED: tuple[Kind, ...] = ("postgres stop", "postgres kill")
ZYGOTE_SHARE, GATEWAY_SHARE = 0.1, 0.05
"""Of the kills. Most go to instances, of which there are most; a gateway is away for two seconds,
and a plan of nothing else would only measure that."""
LEAD_S = 5.0
"""Nothing is struck before: users are still on their way to their tenants."""
TAIL_SHARE = 0.05
"""Of the time, at its end, in which nothing is struck: what was hit recovers under load."""
CUT_SHARE = 0.2
"""Of the clients' connections, or of the sessions in Postgres, that one strike cuts."""

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Strike:
    """One thing that is broken at one moment."""

    at_s: float
    """Since the start of the plan."""
    kind: Kind
    pick: float
    """From 0 up to 1: which of those that are there then, or where among them to begin."""


@dataclasses.dataclass(frozen=True)
class Harm:
    """How much is broken in one plan."""

    kills: int
    restarts: int
    """Of Postgres, stops and kills in turns."""
    cuts: int = 0
    """Strikes on connections and, in turns with them, on sessions."""


def plan(seed: int, seconds: float, harm: Harm) -> tuple[Strike, ...]:
    """Return the strikes in order of time; the same arguments always return the same.

    Each kind is spread over the whole time: the k-th of n strikes falls anywhere in the k-th of n
    equal parts. So there is no long rest, and strikes still fall together by chance.

    Args:
        seed: any number.
        seconds: length of the load.
        harm: how many strikes.
    """
    rng = random.Random(seed)
    kills = _kill_kinds(harm.kills)
    rng.shuffle(kills)
    cuts: list[Kind] = ["sessions" if number % 2 else "connections" for number in range(harm.cuts)]
    restarts = [RESTARTED[number % len(RESTARTED)] for number in range(harm.restarts)]
    strikes = [
        Strike(round(at_s, 3), kind, rng.random())
        for kinds in (kills, cuts, restarts)
        for kind, at_s in zip(kinds, _times(rng, len(kinds), seconds), strict=True)
    ]
    return tuple(sorted(strikes, key=lambda strike: strike.at_s))


def _kill_kinds(kills: int) -> list[Kind]:
    zygotes, gateways = round(kills * ZYGOTE_SHARE), round(kills * GATEWAY_SHARE)
    instances = kills - zygotes - gateways
    counts = zip(KILLED, (instances, zygotes, gateways), strict=True)
    return [kind for kind, count in counts for _ in range(count)]


def _times(rng: random.Random, count: int, seconds: float) -> list[float]:
    first, last = min(LEAD_S, seconds * TAIL_SHARE), seconds * (1 - TAIL_SHARE)
    part = (last - first) / max(1, count)
    return [first + part * (number + rng.random()) for number in range(count)]


def picked(pick: float, among: Sequence[T]) -> T:
    """Return the one that a strike means; `among` must not be empty."""
    return among[int(pick * len(among))]


def cut(pick: float, among: Sequence[T], share: float = CUT_SHARE) -> list[T]:
    """Return the neighbours, counted in a ring, that one strike cuts: at least one if any is there.

    Args:
        pick: where to begin.
        among: in an order that does not depend on what is to be cut.
        share: of them all, 0 to 1.
    """
    if not among:
        return []
    first, count = int(pick * len(among)), max(1, round(share * len(among)))
    return [among[(first + number) % len(among)] for number in range(count)]


def kinds(strikes: Sequence[Strike]) -> dict[str, int]:
    """Return how many strikes there are of each kind."""
    return dict(Counter(strike.kind for strike in strikes))
