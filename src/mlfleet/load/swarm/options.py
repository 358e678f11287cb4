"""Our options among Locust's own, and what they amount to."""

import argparse
from pathlib import Path
from typing import Any

from mlfleet.errors import FleetError
from mlfleet.load import mix
from mlfleet.load.population import tenant_names
from mlfleet.load.shapes import DEFAULT_RUN_S, SHAPES, STORM_PATIENCE_S, Plan
from mlfleet.load.trace import Trace, burst, trace_of

_MIB = 1 << 20
_AFTER_SPAWNING_S = 3.0


def add_options(parser: Any) -> None:
    """Add them to Locust's command line; those that a person changes between runs to its page."""

    def add(name: str, *, page: bool = False, **more: Any) -> None:
        parser.add_argument(name, env_var="", include_in_web_ui=page, **more)

    add(
        "--tenants",
        page=True,
        type=int,
        default=100,
        metavar="N",
        help="Tenants that the users are spread over, by Zipf's law (default 100).",
    )
    add(
        "--think",
        page=True,
        type=float,
        default=60.0,
        metavar="S",
        help="Mean pause of a user between its calls, spread by half (default 60).",
    )
    add("--seed", page=True, type=int, default=1, help="Of everything that is drawn.")
    add(
        "--shape",
        choices=SHAPES,
        default="steady",
        help="How many users there are over time (default steady).",
    )
    add(
        "--trace",
        dest="trace_file",
        default="",
        metavar="FILE",
        help="Rates for --shape trace, a CSV of t_s,rate; without it a burst from 7/s to 35/s.",
    )
    add(
        "--mix",
        default="",
        metavar="KIND=WEIGHT,...",
        help=f"Kinds of users and their weights (default {mix.DEFAULT}).",
    )
    add(
        "--user-client",
        choices=("wire", "mlflow"),
        default="wire",
        help="mlflow: users call the real mlflow client; for some dozens of users.",
    )
    add(
        "--targets",
        default="",
        metavar="FILE",
        help="Tracking servers to use instead of the running fleet's tenants (docs/load.md).",
    )
    add(
        "--data",
        default="",
        metavar="DIRECTORY",
        help="Folder of the fleet (default MLFLEET_DATA, else ./.mlfleet).",
    )
    add(
        "--run-folder",
        default="",
        metavar="DIRECTORY",
        help="Where the run is kept (default load-runs/<time>-<shape>).",
    )
    add(
        "--checkpoint",
        dest="checkpoint_mib",
        type=int,
        default=16,
        metavar="MiB",
        help="Size of a fine-tuning's checkpoint (default 16).",
    )
    add(
        "--max-p99",
        type=float,
        default=None,
        metavar="S",
        help="Fail when the p99 of warm requests is above this many seconds.",
    )
    add(
        "--max-errors",
        type=float,
        default=None,
        metavar="SHARE",
        help="Fail when a larger share of the tries (0 to 1) were answered 400 or more, or not.",
    )
    add(
        "--one-screen",
        action="store_true",
        help="One line of progress and the verdict, without Locust's tables and log.",
    )
    add(
        "--no-check",
        dest="may_check",
        action="store_false",
        help="Do not read the tenants' databases at the end (a later `mlfleet load check` can).",
    )


class _Plain:
    """Takes options as Locust's parser does, into one of the standard library."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self._parser = parser

    def add_argument(
        self, *names: str, env_var: str = "", include_in_web_ui: bool = False, **more: Any
    ) -> None:
        self._parser.add_argument(*names, **more)


def help_text() -> str:
    """Return what `mlfleet load run --help` prints: Locust shows only its own options."""
    parser = argparse.ArgumentParser(
        prog="mlfleet load run",
        usage="mlfleet load run [-u USERS] [-r SPAWN-RATE] [-t RUN-TIME] [options]",
        description="Put load on the running fleet, check every acknowledged row, and report.",
        epilog="All other options are Locust's, --processes and --host for example:"
        " `locust --help` lists them.",
        add_help=False,
    )
    add_options(_Plain(parser))
    return parser.format_help()


def trace_from(options: argparse.Namespace) -> Trace | None:
    """Return the trace to replay, if the shape is one.

    Raises:
        FleetError: its file is missing or bad.
    """
    if options.shape != "trace":
        if options.trace_file:
            raise FleetError("--trace is for --shape trace")
        return None
    if not options.trace_file:
        return burst()
    path = Path(options.trace_file)
    try:
        return trace_of(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as exc:
        raise FleetError(f"{path} cannot be read as a trace: {exc}") from exc


def asked_run_s(options: argparse.Namespace) -> float | None:
    """Return how long the run shall last, if somebody said so: us, or Locust's page."""
    run_s = getattr(options, "run_s", None) or options.run_time
    return float(run_s) if run_s else None


def lead_s(options: argparse.Namespace) -> float:
    """Return how long after its start a run has all users: a trace or a storm begins then."""
    return int(options.num_users or 1) / float(options.spawn_rate or 1) + _AFTER_SPAWNING_S


def plan_from(options: argparse.Namespace, trace: Trace | None) -> Plan:
    """Return how many users there are over time.

    Raises:
        FleetError: the options make none.
    """
    run_s = asked_run_s(options) or DEFAULT_RUN_S
    if trace is not None:
        run_s = lead_s(options) + trace.length_s
    elif options.shape == "storm":
        run_s = lead_s(options) + STORM_PATIENCE_S
    return Plan(options.shape, int(options.num_users or 1), run_s)


def check(options: argparse.Namespace) -> None:
    """Refuse what no run can be made of, before anything is started.

    Raises:
        FleetError: an option makes no sense.
    """
    for name in ("think", "max_p99"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1e6:
            raise FleetError(
                f"--{name.replace('_', '-')} {value:g} is no number of seconds above 0"
            )
    if options.max_errors is not None and not 0 <= options.max_errors <= 1:
        raise FleetError(f"--max-errors {options.max_errors:g} is no share: choose 0 to 1")
    if not 1 <= options.checkpoint_mib <= 4096:
        raise FleetError("--checkpoint must be 1 to 4096 MiB")
    tenant_names(options.tenants)


def checkpoint_bytes(options: argparse.Namespace) -> int:
    """Return the size of a checkpoint."""
    size: int = options.checkpoint_mib * _MIB
    return size
