"""Decide how many users there are at each moment of a run.

Pure: options and time go in, a number comes out.

| shape | users |
|---|---|
| steady | all of them, as fast as the spawn rate allows (Locust's own behaviour) |
| ramp | from a tenth to all of them over the whole run |
| step | five equal steps |
| spike | a fifth of them; all of them in the middle fifth of the run |
| storm | all of them, each with one call inside the same second, on sleeping tenants |
| diurnal | a day in the time of the run: few at night, all at noon; a session each |
| trace | all of them; their calls keep the times of the trace |
"""

import dataclasses
import math

from mlfleet.errors import FleetError

SHAPES = ("steady", "ramp", "step", "spike", "storm", "diurnal", "trace")
STEPS = 5
DEFAULT_RUN_S = 120.0
STORM_WINDOW_S = 1.0
STORM_PATIENCE_S = 130.0
"""A stock client waits 120 s for an answer; a storm that takes longer has failed."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run's options say about its users."""

    shape: str
    users: int
    run_s: float = DEFAULT_RUN_S
    night: float = 0.1
    """Share of the users that are there in a diurnal night."""

    def __post_init__(self) -> None:
        """Refuse what is no plan."""
        if self.shape not in SHAPES:
            raise FleetError(f"there is no shape {self.shape!r}: choose {', '.join(SHAPES)}")
        if self.users < 1:
            raise FleetError(f"{self.users} users make no load: choose 1 or more")
        if not self.run_s > 0:
            raise FleetError(f"a run of {self.run_s:g} s is none: choose more than 0")


def users_at(plan: Plan, t: float) -> int | None:
    """Return how many users there are t seconds after the start; None: the run is over."""
    if t >= plan.run_s:
        return None
    return max(1, round(plan.users * _share(plan, t / plan.run_s)))


def _share(plan: Plan, progress: float) -> float:
    match plan.shape:
        case "ramp":
            return 0.1 + 0.9 * progress
        case "step":
            return (math.floor(progress * STEPS) + 1) / STEPS
        case "spike":
            return 1.0 if 0.4 <= progress < 0.6 else 0.2
        case "diurnal":
            noon = (1 - math.cos(2 * math.pi * progress)) / 2
            return plan.night + (1 - plan.night) * noon
        case _:
            return 1.0
