"""`mlfleet status`: the fleet at a glance."""

import time
from typing import Any

import click

from mlfleet.cli.options import Fleet, fleet_command
from mlfleet.cli.output import ago, print_json, size, table
from mlfleet.errors import FleetError

SHOWN = 50
HEADER = ["TENANT", "TIER", "CELL", "STATE", "LAST REQUEST", "MEMORY", "CONN", "WAKES", "LAST WAKE"]


@click.command()
@click.option("--all", "show_all", is_flag=True, help=f"Show more than {SHOWN} tenants.")
@fleet_command
def status(fleet: Fleet, show_all: bool, as_json: bool) -> None:
    """Show tenants, cells and database of the running fleet; nobody is woken."""
    document = collect(fleet)
    if as_json:
        print_json(document)
    else:
        click.echo(_text(document, None if show_all else SHOWN))


def collect(fleet: Fleet) -> dict[str, Any]:
    """Return what the catalogue, the cells and Postgres say, joined by tenant."""
    cells = [_cell(cell) for cell in fleet.cells()]
    awake = {row["tenant"]: row for cell in cells for row in cell.pop("instances", [])}
    tenants = [
        {
            "name": tenant.name,
            "url": fleet.url(tenant.name),
            "tier": tenant.tier,
            "cell": tenant.cell,
            "mlflow_version": tenant.mlflow_version,
            **_instance(awake.get(tenant.name), tenant.state),
        }
        for tenant in fleet.catalogue.tenants()
    ]
    tenants.sort(key=lambda row: (-(row["last_request"] or 0), row["name"]))
    return {
        "url": fleet.file.url,
        "pid": fleet.file.pid,
        "tenants": tenants,
        "cells": cells,
        "database": {"admin_uri": fleet.file.admin_uri, **connections(fleet)},
    }


def _cell(cell: Any) -> dict[str, Any]:
    try:
        return {"name": cell.name, "state": "ready", **cell.status()}
    except FleetError as exc:
        return {"name": cell.name, "state": "away", "error": str(exc)}


def _instance(row: dict[str, Any] | None, state: str) -> dict[str, Any]:
    fields = ("pid", "last_request", "memory", "connections", "wakes", "last_wake_s")
    asleep = "asleep" if state == "ready" else state
    found = row or {"state": asleep}
    return {"state": found["state"], **{field: found.get(field) for field in fields}}


def connections(fleet: Fleet) -> dict[str, Any]:
    """Return how many connections are open now, and how many may be."""
    with fleet.admin.session() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int, current_setting('server_version'),"
            " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
        )
        limit, version, used = cursor.fetchone() or (0, "", 0)
    return {"version": version, "max_connections": limit, "connections": used}


def _text(document: dict[str, Any], limit: int | None) -> str:
    now, rows = time.time(), document["tenants"]
    awake = sum(row["state"] == "awake" for row in rows)
    database = document["database"]
    shown = [_row(row, now) for row in rows[:limit]]
    lines = [
        f"{document['url']}  {len(rows)} tenants, {awake} awake",
        *(_cell_line(cell) for cell in document["cells"]),
        f"Postgres {database['version']}: {database['connections']} of"
        f" {database['max_connections']} connections",
        "",
        table(HEADER, shown) if shown else "No tenants yet: mlfleet tenant create NAME",
    ]
    if len(shown) < len(rows):
        lines.append(f"… and {len(rows) - len(shown)} more: mlfleet status --all")
    return "\n".join(lines)


def _cell_line(cell: dict[str, Any]) -> str:
    if cell["state"] == "away":
        return f"{cell['name']}: {cell['error']}"
    return f"{cell['name']}: {cell['state']}"


def _row(row: dict[str, Any], now: float) -> list[object]:
    wake_s = row["last_wake_s"]
    return [
        row["name"],
        row["tier"],
        row["cell"],
        row["state"],
        ago(row["last_request"], now),
        size(row["memory"]),
        row["connections"],
        row["wakes"],
        None if wake_s is None else f"{wake_s * 1000:.0f} ms",
    ]
