"""`mlfleet database prepare`: schema work, done once and never in a serving process."""

import time
from pathlib import Path

import click

from mlfleet.cli.options import data_option, json_option
from mlfleet.cli.output import print_json, progress
from mlfleet.errors import DatabaseAwayError
from mlfleet.runtime.folder import DataFolder
from mlfleet.settings import Settings

RETRY_S = 1.0


@click.group(short_help="Prepare a Postgres of your own.")
def database() -> None:
    """The fleet's Postgres."""


@database.command()
@click.option(
    "--admin-uri",
    help="postgresql://USER:PASSWORD@HOST:PORT/postgres with CREATEDB and CREATEROLE."
    "  [default: MLFLEET_ADMIN_URI, else the running fleet's]",
)
@click.option(
    "--wait-s",
    type=click.FloatRange(0),
    default=0.0,
    help="Wait this long for Postgres to come up.",
)
@click.option(
    "--connections",
    type=click.IntRange(0),
    default=0,
    help="Refuse a Postgres that allows fewer; nothing is made there then.",
)
@data_option
@json_option
def prepare(
    admin_uri: str | None, wait_s: float, connections: int, data: Path, as_json: bool
) -> None:
    """Make the catalogue and the template of tenants' databases; again changes nothing.

    `mlfleet up` does this by itself; say it before cells start on a Postgres of your own.
    """
    uri = admin_uri or Settings.from_environ().admin_uri
    if uri is None:
        uri = DataFolder(data).read().admin_uri
    with progress("preparing catalogue and template"):
        left_open = _prepare(uri, connections, time.monotonic() + wait_s)
    if as_json:
        print_json({"ready": True, "left_open": left_open})
    else:
        click.echo("\n".join(["catalogue and template are ready", *left_open]))


def _prepare(uri: str, connections: int, deadline: float) -> list[str]:
    from mlfleet.runtime.preparation import prepare as prepare_database

    said = ""
    while True:
        try:
            return prepare_database(uri, connections)
        except DatabaseAwayError as exc:
            if time.monotonic() > deadline:
                raise
            if str(exc) != said:
                said = str(exc)
                click.echo(f"waiting: {said}", err=True)
        time.sleep(RETRY_S)
