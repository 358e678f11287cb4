"""`mlfleet load soak`: did anything grow during a long load run?"""

import sys
from pathlib import Path
from typing import Any

import click

from mlfleet.cli.durations import Duration
from mlfleet.cli.exits import FAILED
from mlfleet.cli.options import json_option
from mlfleet.cli.output import print_json, size, table


@click.command(short_help="Say whether anything grew during a long load run.")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--settle", type=Duration(), default="10m", show_default=True, help="Left out at the beginning."
)
@click.option(
    "--limit",
    type=click.FloatRange(0),
    default=0.05,
    show_default=True,
    help="Share of growth that counts as flat.",
)
@json_option
def soak(run: Path, settle: Any, limit: float, as_json: bool) -> None:
    """Compare memory, descriptors and connections at both ends of a load RUN.

    RUN is its folder. Memory and descriptors are a role's mean per process. Exit code 1: something
    grew, or the RUN was too short to say.
    """
    from mlfleet.load import census, requests
    from mlfleet.load.soak import judge, of_processes, of_resources

    rows = list(requests.read_lines(run, "resources.jsonl"))
    series = [*of_resources(rows), *of_processes(census.read(run))]
    found = judge(series, settle.total_seconds(), limit)
    if as_json:
        print_json([{**vars(one), "share": one.share} for one in found])
    elif not found:
        click.echo(f"{run} is too short to say: it must be longer than --settle")
    else:
        click.echo(table(["", "WHAT", "FIRST", "LAST", "GROWTH", ""], [_row(o) for o in found]))
    if not found or not all(one.is_flat for one in found):
        sys.exit(FAILED)


def _row(one: Any) -> list[object]:
    first, last = (
        size(value) if one.unit == "bytes" else f"{value:.1f}" for value in (one.first, one.last)
    )
    verdict = "flat" if one.is_flat else "grew"
    return [one.name, one.unit, first, last, f"{one.share:+.1%}", verdict]
