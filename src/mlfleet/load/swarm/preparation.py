"""Before users start: find the servers, make the folder of the run, write down what is run."""

import argparse
import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

from mlfleet.errors import FleetError
from mlfleet.load import mix, run_folder
from mlfleet.load.resources import Sampler
from mlfleet.load.swarm import options as our_options
from mlfleet.load.targets import (
    Target,
    find_fleet,
    read_targets,
    same_address,
    write_targets,
)
from mlfleet.load.trace import csv_of
from mlfleet.settings import Settings


@dataclasses.dataclass(frozen=True)
class Order:
    """What each process of a run must know to begin; travels with Locust's options."""

    load: str
    folder: str
    begins_s: float
    users: int
    workers: int


class Preparation:
    """The servers of a run, found once for all runs of this Locust process.

    Raises:
        FleetError: the options make no run, no fleet runs, or the targets cannot be read.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        our_options.check(options)
        self.options = options
        self.trace = our_options.trace_from(options)
        our_options.plan_from(options, self.trace)
        settings = Settings.from_environ()
        self.data = Path(options.data) if options.data else settings.data
        self.named = read_targets(Path(options.targets)) if options.targets else None
        self.fleet = None if self.named else find_fleet(self.data, options.host, settings.admin_uri)
        self.host = self.named[0].url if self.named else self.fleet.url if self.fleet else ""
        self._check_host(options.host)

    def _check_host(self, host: str | None) -> None:
        if not host:
            return
        known = [target.url for target in self.named] if self.named else [self.host]
        if not any(same_address(host, url) for url in known):
            where = self.options.targets or f"the fleet of {self.data}"
            raise FleetError(
                f"--host {host} is not where {where} answers ({known[0]}): leave --host out, name"
                " that fleet's folder with --data, or other servers with --targets"
            )

    @property
    def kind(self) -> str:
        """Whether the servers are tenants of a fleet or stock ones."""
        if self.named and all(target.token is None for target in self.named):
            return "stock"
        return "fleet"

    @property
    def run_s(self) -> float | None:
        """How long the run lasts; None: until it is stopped."""
        if self.options.shape == "steady":
            return our_options.asked_run_s(self.options)
        return our_options.plan_from(self.options, self.trace).run_s

    def begin(self, mixture: str, workers: int) -> tuple[Order, dict[str, Any]]:
        """Make the folder of a run with its targets and its run.json; return both.

        Args:
            mixture: the kinds of users and their weights.
            workers: processes with users.
        """
        options = self.options
        folder = run_folder.new_folder(options.run_folder, options.shape)
        targets = self._targets()
        write_targets(folder / "targets.json", targets)
        if self.trace is not None:
            (folder / "trace.csv").write_text(csv_of(self.trace))
        if options.shape == "storm" and self.fleet:
            self.fleet.put_to_sleep(targets)
        now = time.time()
        users = int(options.num_users or 1)
        begins_s = now + our_options.lead_s(options)
        order = Order(run_folder.new_load_id(), str(folder), begins_s, users, workers)
        document = self._document(order, now, mixture, len(targets))
        run_folder.write_run(folder, document)
        return order, document

    def _targets(self) -> list[Target]:
        if self.named is not None:
            return self.named
        assert self.fleet
        return self.fleet.register(self.options.tenants)

    def sampler(self, folder: Path, pid: int) -> Sampler:
        """Return the one that watches the fleet, if it is on this machine, and this Locust."""
        fleet = self.fleet
        if fleet is None or fleet.is_here:
            return Sampler(folder, fleet.data if fleet else None, {"locust": pid})
        return Sampler(folder, None, {"locust": pid}, database_uri=fleet.admin_uri)

    def _document(self, order: Order, now: float, mixture: str, tenants: int) -> dict[str, Any]:
        options = self.options
        return {
            "run": order.load,
            "kind": self.kind,
            "started_at": run_folder.moment(now),
            "ended_at": None,
            "command": " ".join(sys.argv),
            "host": options.host or self.host,
            "seed": options.seed,
            "users": int(options.num_users or 1),
            "spawn_rate": options.spawn_rate,
            "run_time_s": self.run_s,
            "think_s": options.think,
            "shape": options.shape,
            "mix": mixture,
            "tenants": tenants,
            "processes": order.workers,
            "limits": {"p99_s": options.max_p99, "errors": options.max_errors},
            "machine": run_folder.machine(),
        }


def mixture(options: argparse.Namespace, kinds: list[str]) -> dict[str, float]:
    """Return the weight of each kind of users of this run.

    Raises:
        FleetError: --mix cannot be understood.
    """
    if options.user_client == "mlflow":
        if options.mix:
            raise FleetError("--user-client mlflow has one kind of users: leave --mix out")
        return {"mlflow": 1.0}
    if options.shape == "storm":
        if options.mix:
            raise FleetError("--shape storm has one kind of users: leave --mix out")
        return {"training": 1.0}
    of_wire = [kind for kind in kinds if kind != "mlflow"]
    if options.mix:
        return mix.parse_mix(options.mix, of_wire)
    # Locust's own way to choose, by the names of classes, may have left some out.
    usual = mix.parse_mix(mix.DEFAULT, mix.KINDS)
    return {kind: usual[kind] for kind in of_wire if kind in usual} or dict.fromkeys(of_wire, 1.0)
