"""How long a run of the benchmarks takes: everything that trades time for certainty."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Effort:
    """The sizes of one run."""

    name: str
    rounds: int
    """Turns of A/B for each figure of throughput; the median of them counts."""
    seconds: float
    """Length of one turn's measured window."""
    stock_starts: int
    wakes: int
    newcomers: int
    """Brand-new tenants, one first request each, one after the other."""
    storm: int
    """Brand-new tenants whose first requests come at once."""
    cell_starts: int
    memory_awake: int
    """Instances awake while their memory is read."""
    awake: tuple[int, ...]
    """Instances awake at once, each asked while all are awake."""
    writers_s: float
    crowds: tuple[tuple[int, int], ...]
    """Tenants writing at once, and Postgres' max_connections."""
    crowd_s: float
    artifact_mib: int


FULL = Effort(
    name="full",
    rounds=3,
    seconds=5.0,
    stock_starts=3,
    wakes=200,
    newcomers=50,
    storm=100,
    cell_starts=5,
    memory_awake=200,
    awake=(500, 1000),
    writers_s=60.0,
    crowds=((20, 40), (100, 130)),
    crowd_s=30.0,
    artifact_mib=2048,
)
QUICK = Effort(
    name="quick",
    rounds=1,
    seconds=2.0,
    stock_starts=1,
    wakes=40,
    newcomers=10,
    storm=20,
    cell_starts=1,
    memory_awake=20,
    awake=(50,),
    writers_s=8.0,
    crowds=((20, 40),),
    crowd_s=5.0,
    artifact_mib=256,
)
