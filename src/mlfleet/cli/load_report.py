"""`mlfleet load report`: the report of a run, again from its folder; or two runs side by side."""

from pathlib import Path

import click

from mlfleet.cli.options import json_option
from mlfleet.cli.output import print_json

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(short_help="Make a run's report again, or compare two runs.")
@click.argument("run", type=FOLDER)
@click.argument("other", type=FOLDER, required=False)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the comparison goes.  [default: compare-<RUN>.html in OTHER]",
)
@json_option
def report(run: Path, other: Path | None, page: Path | None, as_json: bool) -> None:
    """Write report.html and report.json into the folder of a RUN, and print its figures.

    With OTHER, one page compares the two runs: ratios are OTHER over RUN.
    """
    if other is not None:
        _compare(run, other, page or other / f"compare-{run.absolute().name}.html", as_json)
        return
    from mlfleet.load.report import summary, write

    figures = write(run)
    if as_json:
        print_json({key: value for key, value in figures.items() if key != "series"})
    else:
        click.echo(summary(figures))
        click.echo(f"\n{run / 'report.html'}")


def _compare(run: Path, other: Path, page: Path, as_json: bool) -> None:
    from mlfleet.load import two_runs

    found = two_runs.write(run, other, page)
    if as_json:
        print_json(
            [
                {"what": p.what, "first": p.first, "second": p.second, "ratio": p.ratio}
                for p in found
            ]
        )
        return
    click.echo(two_runs.text(found, two_runs.names_of(run, other)))
    click.echo(f"\n{page}")
