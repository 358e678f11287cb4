"""Users who train: a session, a long fine-tuning with nested runs, a sweep of short ones."""

from typing import ClassVar

from gevent.pool import Group  # type: ignore[import-untyped]
from locust.exception import StopUser

from mlfleet.load.shapes import STORM_PATIENCE_S
from mlfleet.load.swarm.run_writer import RunWriter
from mlfleet.load.swarm.user import DEFAULT_EXPERIMENT, GaveUpError, LoadUser
from mlfleet.load.swarm.wire import Connection

_METRICS = tuple(f"metric_{i}" for i in range(8))
_PARAMS = tuple(f"param_{i:02d}" for i in range(12))
_FILE_BYTES = 64 << 10


class TrainingSession(LoadUser):
    """One run: params, a batch of metrics at each step, a tag, a file, the end."""

    key: ClassVar[str] = "training"

    def storm(self) -> None:
        """Create a run at a sleeping tenant, then only be there."""
        RunWriter(self, DEFAULT_EXPERIMENT)
        self.sleep(STORM_PATIENCE_S)

    def session(self) -> None:
        """Train once."""
        run = RunWriter(self, self.experiment())
        run.log(params=_PARAMS, tags=[("stage", 1)], paced=False)
        for step in range(0, 2 * self.draw.randint(5, 12), 2):
            run.log(_METRICS, step, step + 1, paced=True)
        run.put("model/weights.bin", _FILE_BYTES, paced=True)
        run.set_tag("stage", 2, paced=False)
        run.finish()


class LlmFineTuning(LoadUser):
    """A parent and nested runs: big params, dozens of steps a call, rare checkpoints, traces."""

    key: ClassVar[str] = "llm"
    STAGES = 2
    CALLS = 8
    STEPS = 25
    """Of training between two calls."""
    SPANS = 6

    def session(self) -> None:
        """Fine-tune once."""
        parent = RunWriter(self, self.experiment())
        big = [f"big_config_{i}" for i in range(4)]
        parent.log(params=(*_PARAMS, *big), tags=[("base_model", 1)], paced=False)
        for stage in range(self.STAGES):
            self._stage(parent, stage)
        parent.finish()

    def _stage(self, parent: RunWriter, stage: int) -> None:
        run = RunWriter(self, parent.experiment_id, parent=parent.run_id)
        run.log(params=_PARAMS, paced=False)
        for call in range(self.CALLS):
            first = call * self.STEPS
            run.log(_METRICS, first, first + self.STEPS - 1, paced=True)
            if call % 3 == 2:
                run.trace(call, self.SPANS, paced=False)
        size = self.run_of_load.checkpoint_bytes
        run.put(f"checkpoints/{stage}.pt", size, paced=True, label="artifacts PUT checkpoint")
        run.finish()


class Sweep(LoadUser):
    """Many short runs at once below one parent, each by a process of its own."""

    key: ClassVar[str] = "sweep"
    WIDTH = 4
    RUNS = 12

    def session(self) -> None:
        """Sweep once."""
        parent = RunWriter(self, self.experiment())
        self._workers = Group()
        for _ in range(self.WIDTH):
            self._workers.spawn(self._worker, parent, self.RUNS // self.WIDTH)
        try:
            self._workers.join()
        finally:
            self._workers.kill()
        parent.finish()

    def _worker(self, parent: RunWriter, runs: int) -> None:
        connection = Connection(self.server)
        try:
            for _ in range(runs):
                self._short_run(parent, connection)
        except GaveUpError:
            pass
        except StopUser:
            # The last one that had an answer in flight: the others only wait.
            if not self.asks:
                self._workers.kill(block=False)
        finally:
            connection.close()

    def _short_run(self, parent: RunWriter, connection: Connection) -> None:
        run = RunWriter(self, parent.experiment_id, parent=parent.run_id, connection=connection)
        run.log(("loss", "accuracy"), 0, 4, params=_PARAMS[:4], paced=False)
        run.finish()
