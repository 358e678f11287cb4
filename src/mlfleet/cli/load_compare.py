"""`mlfleet load compare`: the same users at stock `mlflow server` and at the running fleet."""

import datetime
import json
from pathlib import Path
from typing import Any

import click

from mlfleet.cli.durations import Duration
from mlfleet.cli.options import Fleet, fleet_command
from mlfleet.cli.output import print_json, table


@click.command(short_help="Put the same users at stock MLflow and at the fleet.")
@click.option("--tenants", type=click.IntRange(1), default=30, show_default=True)
@click.option("--mix", default="seed=1", show_default=True, help="Kinds of users.")
@click.option(
    "--p99", "p99_s", type=click.FloatRange(0.001), default=0.5, show_default=True,
    help="Seconds that the p99 of a rate may have to count.",
)  # fmt: skip
@click.option("--turns", type=click.IntRange(1), default=2, show_default=True)
@click.option(
    "--window", type=Duration(), default="10s", show_default=True, help="Measured, of each probe."
)
@click.option("--short", "is_short", is_flag=True, help="Only stock's defaults, only many tenants.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="For the runs.  [default: load-runs/<time>-compare]",
)
@fleet_command
def compare(
    fleet: Fleet,
    tenants: int,
    mix: str,
    p99_s: float,
    turns: int,
    window: Any,
    is_short: bool,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Find how much each side carries while its p99 stays within --p99, in turns.

    Each side is given ever more users until it is too slow. Stock gets a database of its own in the
    fleet's Postgres. Takes about 20 minutes; run nothing else meanwhile. compare.json in the folder
    keeps every probe, and each probe's load run is beside it.
    """
    from mlfleet.load import compare as verdicts
    from mlfleet.load.comparison import Comparison
    from mlfleet.load.trial import Trial

    folder = (folder or _new_folder()).absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    trial = Trial(folder, mix, window.total_seconds(), p99_s, _say)
    result = Comparison(fleet.folder.path, trial, tenants).run(turns, is_short=is_short)
    document = {"mix": mix, "p99_s": p99_s, "tenants": tenants} | result.document()
    (folder / "compare.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "compare.md").write_text(verdicts.markdown(result.sides) + "\n")
    if as_json:
        print_json(document)
    else:
        click.echo(table([name.upper() for name in verdicts.HEADER], verdicts.rows(result.sides)))
        click.echo(f"\nthe fleet carries {document['ratio']:.1f} times what stock does; {folder}")


def _say(text: str) -> None:
    click.echo(text, err=True)


def _new_folder() -> Path:
    return Path("load-runs") / f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}-compare"
