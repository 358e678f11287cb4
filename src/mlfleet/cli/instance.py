"""`mlfleet wake|sleep|logs`: one tenant's instance, by hand."""

import json
import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import click

from mlfleet.cli.options import Fleet, data_option, fleet_command, json_option
from mlfleet.cli.output import print_json, progress
from mlfleet.errors import FleetError
from mlfleet.runtime.folder import DataFolder

FOLLOW_S = 0.2


@click.command(short_help="Wake a tenant's instance.")
@click.argument("tenant")
@fleet_command
def wake(fleet: Fleet, tenant: str, as_json: bool) -> None:
    """Wake TENANT's instance, making its database first if it has none yet."""
    with progress(f"waking {tenant}"):
        answer = fleet.cell_of(tenant).wake(tenant)
    if as_json:
        print_json({"name": tenant, **answer})
    else:
        click.echo(f"{tenant} is awake")


@click.command(short_help="Put a tenant's instance to sleep.")
@click.argument("tenant")
@fleet_command
def sleep(fleet: Fleet, tenant: str, as_json: bool) -> None:
    """Let TENANT's instance finish what is in flight and end; its next request wakes it."""
    with progress(f"putting {tenant} to sleep"):
        answer = fleet.cell_of(tenant).sleep(tenant)
    if as_json:
        print_json({"name": tenant, **answer})
    else:
        click.echo(f"{tenant} is asleep")


@click.command(short_help="Print the newest lines of a log.")
@click.argument("tenant", required=False)
@click.option("--cell", is_flag=True, help="Read the cell's log instead of a tenant's.")
@click.option("--postgres", is_flag=True, help="Read the embedded Postgres' log.")
@click.option("-n", "--lines", "count", type=click.IntRange(0), default=50, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Keep printing what is added, until Ctrl-C.")
@data_option
@json_option
def logs(
    tenant: str | None,
    cell: bool,
    postgres: bool,
    count: int,
    follow: bool,
    data: Path,
    as_json: bool,
) -> None:
    """Print the newest lines that TENANT's instances wrote; a fleet need not run.

    With --json each line is one JSON object: a line that is no JSON itself comes as
    {"text": ...}.
    """
    if (tenant is not None) + cell + postgres != 1:
        raise click.UsageError("name one TENANT, or say --cell, or --postgres")
    name = tenant or ("cell-0" if cell else "postgres")
    for line in _lines(_log_file(DataFolder(data), name), count, follow=follow):
        click.echo(_as_json(line) if as_json else line)


def _log_file(folder: DataFolder, name: str) -> Path:
    path = folder.logs / f"{name}.log"
    # A name comes from the command line: it must not lead out of the folder.
    if path.parent != folder.logs or os.sep in name or not path.is_file():
        raise FleetError(f"{name} has written no log in {folder.logs}")
    return path


def _lines(path: Path, count: int, *, follow: bool) -> Iterator[str]:
    with path.open(errors="replace") as file:
        yield from (line.rstrip("\n") for line in deque(file, count))
        while follow:
            if line := file.readline():
                yield line.rstrip("\n")
            else:
                time.sleep(FOLLOW_S)


def _as_json(line: str) -> str:
    try:
        document = json.loads(line)
    except ValueError:
        document = None
    return line if isinstance(document, dict) else json.dumps({"text": line})
