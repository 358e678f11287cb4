"""The five REST tasks of an earlier load test of this field, kept for comparison."""

from collections.abc import Callable
from typing import ClassVar

from mlfleet.load.swarm.run_writer import RunWriter
from mlfleet.load.swarm.user import API, DEFAULT_EXPERIMENT, LoadUser


class SeedTasks(LoadUser):
    """Creates experiments and runs, logs a metric or a param, searches: evenly, 1 to 3 s apart.

    A metric or param goes to the user's newest run; the first run is made when one is needed.
    """

    key: ClassVar[str] = "seed"
    think_s: ClassVar[float] = 2.0
    """Spread by half on both sides: 1 to 3 s."""
    _run: RunWriter | None = None
    _written = 0

    def move(self) -> None:
        """At another tenant nothing of the last one's is at hand."""
        super().move()
        self._run = None

    def session(self) -> None:
        """Do one of the five."""
        self.draw.choice(self._TASKS)(self)

    def _create_experiment(self) -> None:
        self.new_experiment()

    def _create_run(self) -> None:
        self._run = RunWriter(self, self.experiment_id or DEFAULT_EXPERIMENT)

    def _log_metric(self) -> None:
        if self._run is None:
            self._create_run()
            return
        self._written += 1
        self._run.log_metric("loss", self._written, paced=True)

    def _log_param(self) -> None:
        if self._run is None:
            self._create_run()
            return
        self._written += 1
        self._run.log_param(f"param_{self._written}", paced=True)

    def _search_runs(self) -> None:
        body = {
            "experiment_ids": [self.experiment_id or DEFAULT_EXPERIMENT],
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 50,
        }
        self.paced("runs/search", "POST", f"{API}/runs/search", body)

    _TASKS: ClassVar[list[Callable[["SeedTasks"], None]]] = [
        _create_experiment, _create_run, _log_metric, _log_param, _search_runs,
    ]  # fmt: skip
