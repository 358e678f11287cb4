"""What every row needs: where to work, on which ports, how long, and how to say progress."""

import dataclasses
import sys
import time
from pathlib import Path

from benchmarks.effort import Effort


@dataclasses.dataclass(frozen=True)
class Bench:
    """One run of the benchmarks."""

    folder: Path
    """An empty folder for data; removed afterwards."""
    port: int
    """The first of ten free ports."""
    effort: Effort
    started: float = dataclasses.field(default_factory=time.monotonic)

    @property
    def fleet_port(self) -> int:
        """Where the fleet listens."""
        return self.port

    def stock_port(self, number: int) -> int:
        """Where a stock server listens."""
        return self.port + 1 + number

    def say(self, text: str) -> None:
        """Print one line of progress with the time since the start."""
        print(f"[{time.monotonic() - self.started:6.1f} s] {text}", file=sys.stderr, flush=True)
