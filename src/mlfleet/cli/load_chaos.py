"""`mlfleet load chaos`: break a running fleet on purpose, on a seed."""

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlfleet.cli.durations import Duration
from mlfleet.cli.options import Fleet, fleet_command
from mlfleet.cli.output import print_json
from mlfleet.errors import FleetError

if TYPE_CHECKING:
    from mlfleet.load.harm import Outcome


@click.command(short_help="Break a running fleet on purpose, on a seed.")
@click.option("--seed", type=int, default=1, show_default=True, help="Repeats a plan.")
@click.option(
    "--kills",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Instances, zygotes and gateways killed with -9 (85, 10 and 5 of a hundred).",
)
@click.option(
    "--restarts",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Of the embedded Postgres: told to stop, killed with -9, in turns.",
)
@click.option(
    "--cuts",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Times that a fifth of the clients' connections or of the database sessions is cut.",
)
@click.option(
    "--time", "length", type=Duration(), default="15m", show_default=True, help="Such as 90s."
)
@click.option(
    "--run",
    "folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the load run that this belongs to: its events.jsonl is added to.",
)
@fleet_command
def chaos(
    fleet: Fleet,
    seed: int,
    kills: int,
    restarts: int,
    cuts: int,
    length: Any,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Kill instances, zygotes and gateways, cut connections, restart Postgres.

    Run it beside `mlfleet load run`, then let `mlfleet load check` look at what was kept. Touches
    only what belongs to the fleet of the data folder. Exit code 1: the fleet did not recover, or
    not everything could be broken as planned.
    """
    from mlfleet.load import harm
    from mlfleet.load.chaos import Harm, plan
    from mlfleet.load.events import Events

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    strikes = plan(seed, length.total_seconds(), Harm(kills, restarts, cuts))
    striker = harm.Striker(fleet.folder)
    striker.check(strikes)
    events = Events(folder)

    def tell(kind: str, detail: str) -> None:
        events.add(kind, detail)
        click.echo(f"{kind}: {detail}", err=True)

    tell("chaos", f"{len(strikes)} strikes on seed {seed} begin")
    outcomes = harm.carry_out(strikes, striker.strike, tell)
    recovered_s = harm.wait_until_well(striker.is_well)
    tell("chaos", f"over; the fleet {_after(recovered_s)}")
    document = _document(outcomes, recovered_s) | {"seed": seed}
    if as_json:
        print_json(document)
    if recovered_s is None or document["missed"]:
        raise FleetError(f"{document['missed']} strikes missed; the fleet {_after(recovered_s)}")


def _after(recovered_s: float | None) -> str:
    if recovered_s is None:
        return "did not recover"
    return f"serves, {recovered_s:.1f} s after the last strike"


def _document(outcomes: "list[Outcome]", recovered_s: float | None) -> dict[str, Any]:
    from mlfleet.load.chaos import kinds

    hit = [outcome.strike for outcome in outcomes if outcome.hit]
    return {
        "struck": kinds(hit),
        "missed": len(outcomes) - len(hit),
        "latest_s": max((outcome.late_s for outcome in outcomes), default=0.0),
        "recovered_s": recovered_s,
    }
