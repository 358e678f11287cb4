"""What `locust -f` loads: every kind of user, and our listeners."""

import contextlib
import resource

from mlfleet.load.swarm.listeners import install
from mlfleet.load.swarm.reading import Dashboard, Registry
from mlfleet.load.swarm.seed_tasks import SeedTasks
from mlfleet.load.swarm.stock_client import StockClient
from mlfleet.load.swarm.training import LlmFineTuning, Sweep, TrainingSession

__all__ = [
    "Dashboard", "LlmFineTuning", "Registry", "SeedTasks", "StockClient", "Sweep",
    "TrainingSession",
]  # fmt: skip


def _open_as_many_files_as_allowed() -> None:
    """Each user is a connection: ten thousand are more than the usual soft limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_open_as_many_files_as_allowed()
install()
