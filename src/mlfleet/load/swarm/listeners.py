"""What happens when Locust begins, when a run starts, when it stops, and when Locust ends."""

import dataclasses
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any

import gevent  # type: ignore[import-untyped]
import locust
from locust.runners import MasterRunner, WorkerRunner

from mlfleet.errors import FleetError, NotRunningError
from mlfleet.load.ledger import Ledger
from mlfleet.load.live import Live
from mlfleet.load.requests import Recorder
from mlfleet.load.swarm import options as our_options
from mlfleet.load.swarm import page, progress
from mlfleet.load.swarm.conclusion import Conclusion
from mlfleet.load.swarm.preparation import Order, Preparation, mixture
from mlfleet.load.swarm.run import Run, clock
from mlfleet.load.swarm.shape import PlannedShape
from mlfleet.load.swarm.stock_client import client_class
from mlfleet.load.targets import read_targets
from mlfleet.load.trace import trace_of

STOP_S = 20.0
"""For answers in flight when users stop; who only waits is stopped at once."""
_WORKERS_S = 5.0
_NOT_RUNNING = 4
_FAILED = 1


def install() -> None:
    """Listen to Locust; call it once in a locustfile."""
    events: Any = locust.events
    events.init_command_line_parser.add_listener(our_options.add_options)
    events.init.add_listener(_init)


def _init(environment: Any, **_: Any) -> None:
    is_worker = isinstance(environment.runner, WorkerRunner)
    try:
        boss = None if is_worker else Boss(environment)
    except FleetError as exc:
        print(f"mlfleet: {exc}", file=sys.stderr)
        _dismiss_workers(environment)
        sys.exit(_NOT_RUNNING if isinstance(exc, NotRunningError) else _FAILED)
    crew = None if isinstance(environment.runner, MasterRunner) else Crew(environment)
    live = page.install(environment, crew.recorder if crew else None)
    # In this order: the boss prepares what the users of the same process begin with.
    if boss is not None:
        boss.listen(live)
    if crew is not None:
        crew.listen()
    if boss is not None:
        boss.listen_last()


def _dismiss_workers(environment: Any) -> None:
    """Tell the processes that Locust has forked to end; left alone they wait for a minute."""
    runner, options = environment.runner, environment.parsed_options
    if isinstance(runner, MasterRunner) and options.processes:
        deadline = clock() + _WORKERS_S
        while len(runner.clients.ready) < options.processes and clock() < deadline:
            gevent.sleep(0.05)
        runner.quit()


class Boss:
    """The process that begins and ends runs: Locust's master, or its only process."""

    def __init__(self, environment: Any) -> None:
        options = environment.parsed_options
        self.environment = environment
        self.options = options
        if options.headless:
            # Locust's own clock would run while the tenants are being registered.
            options.run_s, options.run_time = options.run_time, None
        self.preparation = Preparation(options)
        self.conclusion: Conclusion | None = None
        self._line: gevent.Greenlet | None = None
        environment.host = environment.host or self.preparation.host
        environment.stop_timeout = environment.stop_timeout or STOP_S
        self._choose_users()
        if options.one_screen:
            logging.getLogger("locust.stats_logger").setLevel(logging.ERROR)
        if options.shape != "steady":
            options.spawn_rate = options.spawn_rate or max(100, (options.num_users or 1) // 2)
            environment.shape_class = PlannedShape(options)
            environment.shape_class.runner = environment.runner

    def _choose_users(self) -> None:
        classes = {user.key: user for user in self.environment.user_classes if user.key}
        weights = mixture(self.options, list(classes))
        for kind, weight in weights.items():
            classes[kind].weight = weight
        self.mix = ",".join(f"{kind}={weight:g}" for kind, weight in weights.items())
        self.environment.user_classes = [classes[kind] for kind in weights]

    def listen(self, live: Live) -> None:
        """Prepare each run before anybody else hears of it."""
        self._live = live
        self.environment.events.test_start.add_listener(self._start)

    def listen_last(self) -> None:
        """Conclude each run after everybody else has."""
        self.environment.events.test_stop.add_listener(self._stop)
        self.environment.events.quitting.add_listener(self._quit)

    def _start(self, **_: Any) -> None:
        if self.conclusion is not None:
            self.conclusion.wait()
        try:
            order, document = self.preparation.begin(self.mix, self._workers())
        except FleetError as exc:
            print(f"mlfleet: {exc}", file=sys.stderr)
            self.environment.process_exit_code = _FAILED
            gevent.spawn(self.environment.runner.quit)
            return
        self.options.order = dataclasses.asdict(order)
        folder = Path(order.folder)
        self._announce(document, folder)
        sampler = self.preparation.sampler(folder, os.getpid())
        sampler.start()
        self.conclusion = Conclusion(folder, document, sampler, self.preparation.data)
        self.conclusion.may_check = self.options.may_check
        self._live.begin(folder, document["limits"])
        self._begin_clock()
        if self.options.one_screen:
            self._line = progress.show(self._live.line)

    def _length(self) -> str:
        run_s = self.preparation.run_s
        return f"for {run_s:g} s" if run_s else "until it is stopped"

    def _begin_clock(self) -> None:
        """Count the time of the run from here."""
        if self.environment.shape_class is not None:
            self.environment.shape_class.reset_time()
        elif self.options.headless and self.preparation.run_s:
            gevent.spawn_later(self.preparation.run_s, self.environment.runner.quit)

    def _announce(self, document: dict[str, Any], folder: Path) -> None:
        print(
            f"load run {document['run']}: {document['users']} users ({document['mix']}) on"
            f" {document['tenants']} tenants of {document['host']}, shape {document['shape']},"
            f" {self._length()}"
            f"; kept in {folder}",
            file=sys.stderr,
        )

    def _workers(self) -> int:
        runner = self.environment.runner
        return int(runner.worker_count) if isinstance(runner, MasterRunner) else 1

    def _stop(self, **_: Any) -> None:
        if self._line is not None:
            self._line.kill()
            self._line = None
        if self.conclusion is not None:
            self.conclusion.begin()

    def _quit(self, **_: Any) -> None:
        """Stop the users, if Ctrl-C came first, and leave with the verdict's exit code."""
        runner = self.environment.runner
        runner.quit()
        if self.conclusion is not None and self.environment.process_exit_code is None:
            # Failed tries alone are no failure, unless there are more than the limit allows.
            code = self.conclusion.wait() or int(bool(runner.exceptions))
            self.environment.process_exit_code = code


class Crew:
    """A process with users."""

    def __init__(self, environment: Any) -> None:
        # A full collection looks at all users, who wait meanwhile: ten thousand wait long.
        gc.set_threshold(20_000, 20, 1_000)
        self.environment = environment
        self.recorder = Recorder(None)
        environment.mlfleet_run = None
        self.run: Run | None = None
        self._beat: gevent.Greenlet | None = None
        if environment.parsed_options.user_client == "mlflow":
            client_class()

    def listen(self) -> None:
        """Begin and end with each run."""
        self.environment.events.test_start.add_listener(self._start)
        self.environment.events.test_stop.add_listener(self._stop)
        self.environment.events.quitting.add_listener(self._quit)

    def _start(self, **_: Any) -> None:
        options = self.environment.parsed_options
        if getattr(options, "order", None) is None:
            return
        if options.user_client == "mlflow":
            client_class()
        order = Order(**options.order)
        options.order = None if isinstance(self.environment.runner, WorkerRunner) else options.order
        folder = Path(order.folder)
        self.recorder.begin(folder)
        runner = self.environment.runner
        trace = folder / "trace.csv"
        self.run = self.environment.mlfleet_run = Run(
            load=order.load,
            folder=folder,
            targets=read_targets(folder / "targets.json"),
            ledger=Ledger(folder, order.load),
            recorder=self.recorder,
            shape=options.shape,
            seed=options.seed,
            users=order.users,
            think_s=options.think,
            begins_s=order.begins_s,
            worker=max(0, runner.worker_index),
            workers=order.workers,
            trace=trace_of(trace.read_text(), str(trace)) if trace.exists() else None,
            checkpoint_bytes=our_options.checkpoint_bytes(options),
        )
        self._beat = gevent.spawn(self._write_each_second, self.run)

    def _write_each_second(self, run: Run) -> None:
        while True:
            gevent.sleep(1 - clock() % 1)
            now = clock()
            run.recorder.populate(self.environment.runner.user_count, run.intended, now)
            run.intended = 0
            run.recorder.flush(now)

    def _stop(self, **_: Any) -> None:
        if self._beat is not None:
            self._beat.kill()
            self._beat = None
        if self.run is not None:
            self.run.close()
            self.run = self.environment.mlfleet_run = None

    def _quit(self, **_: Any) -> None:
        """Stop the users, if Ctrl-C came first: their last answers belong to the run."""
        self.environment.runner.quit()
        self._stop()
