"""Locust's shape of a run, from the pure plan."""

import argparse
from typing import Any

from locust import LoadTestShape

from mlfleet.load.shapes import users_at
from mlfleet.load.swarm.options import plan_from, trace_from


class PlannedShape(LoadTestShape):
    """Asks the plan each second; reads users, spawn rate and run time as Locust's options say."""

    use_common_options = True

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._options = options

    def tick(self) -> tuple[int, float] | None:
        """Return how many users there are now and how fast they come; None ends the run."""
        options = self._options
        plan = plan_from(options, trace_from(options))
        # Users of a shape come when it says so; its own slope is its spawn rate.
        rate = float(options.spawn_rate or max(1, plan.users))
        now: float = self.get_run_time()  # type: ignore[no-untyped-call]
        users = users_at(plan, now)
        if users is None or (plan.shape == "storm" and self._all_answered(plan.users)):
            return None
        return users, rate

    def _all_answered(self, users: int) -> bool:
        runner: Any = self.runner
        total = runner.stats.total
        return bool(total.num_requests - total.num_failures >= users)
