"""Decide which tenant a user works for.

Pure. Real teams differ in size by orders of magnitude, so users are spread by Zipf's law: the
tenant of rank k gets a share in proportion to 1/k. A user's tenant follows from the seed and the
user's number alone; several Locust processes agree on it without talking.
"""

import bisect
import dataclasses
import functools
import itertools
import random

from mlfleet.errors import FleetError

MOST_TENANTS = 10_000


def tenant_names(count: int) -> list[str]:
    """Return the names of the tenants of load tests; the same in every run, so they are reused.

    Raises:
        FleetError: the count is out of range.
    """
    if not 1 <= count <= MOST_TENANTS:
        raise FleetError(f"{count} tenants are not possible: choose 1 to {MOST_TENANTS}")
    return [f"load-{number:04d}" for number in range(count)]


@functools.lru_cache(maxsize=8)
def _cumulated_shares(tenants: int, exponent: float) -> tuple[float, ...]:
    return tuple(itertools.accumulate(rank**-exponent for rank in range(1, tenants + 1)))


@dataclasses.dataclass(frozen=True)
class Population:
    """Users of many tenants."""

    tenants: int
    seed: int
    exponent: float = 1.0
    """0: all tenants have the same share; 1: Zipf's law."""

    def tenant(self, user: int) -> int:
        """Return the index of the tenant that a user (counted from 0) works for."""
        shares = _cumulated_shares(self.tenants, self.exponent)
        draw = random.Random(f"{self.seed} tenant {user}").random() * shares[-1]
        return min(bisect.bisect_right(shares, draw), self.tenants - 1)

    def visited(self, turn: int) -> int:
        """Return the tenant of the n-th session of a run in which every tenant has its turn.

        The order is shuffled by the seed.
        """
        return _order(self.tenants, self.seed)[turn % self.tenants]


@functools.lru_cache(maxsize=8)
def _order(tenants: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(f"{seed} visits").sample(range(tenants), tenants))
