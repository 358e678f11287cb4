"""Decide how long to wait before a crashed process is started again.

Pure. The first crash is mended at once, because most are one bad request; a process that keeps
crashing is tried less and less often, so that its log stays readable and the machine usable.
"""

import dataclasses

FIRST_S = 0.1
LONGEST_S = 10.0
STEADY_S = 30.0
"""A process that ran this long is taken to be well: its next crash counts as the first."""


@dataclasses.dataclass(frozen=True)
class Crashes:
    """How often in a row a process ended soon after its start."""

    in_a_row: int = 0

    def after(self, ran_s: float) -> "Crashes":
        """Return the count after one more crash of a process that ran this long."""
        return Crashes(1 if ran_s >= STEADY_S else self.in_a_row + 1)

    @property
    def delay_s(self) -> float:
        """Seconds to wait before the next start."""
        return min(LONGEST_S, FIRST_S * 4.0 ** (self.in_a_row - 1)) if self.in_a_row > 1 else 0.0
