"""`mlfleet --cluster …`: the same questions to a fleet on Kubernetes, found by KUBECONFIG."""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

import click

from mlfleet.cli.exits import FAILED
from mlfleet.cli.options import json_option
from mlfleet.cli.output import ago, print_json, progress, table
from mlfleet.errors import FleetError

if TYPE_CHECKING:
    from mlfleet.cluster.api import Api, Document

Function = Callable[..., Any]


def cluster_command(function: Function) -> Function:
    """Give a command `--namespace` and `--json`, and the cluster's API as its first argument."""

    @click.option("--namespace", default="mlfleet", show_default=True, help="Of the fleet.")
    @json_option
    @functools.wraps(function)
    def with_api(*arguments: Any, namespace: str, **options: Any) -> Any:
        try:
            from mlfleet.cluster.api import Api
        except ModuleNotFoundError as exc:
            raise FleetError(
                f"--cluster needs the package {exc.name}: pip install 'mlfleet[cluster]'"
            ) from exc
        return function(Api(namespace), *arguments, **options)

    return with_api


@click.group()
def tenant() -> None:
    """Tenants, as objects of the cluster."""


@tenant.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--file", "source", type=click.File(), help="Names, one a line; - is stdin.")
@click.option(
    "--tier", type=click.Choice(["shared", "dedicated"]), default="shared", show_default=True
)
@click.option("--cell", help="Cell of a shared tenant.  [default: cell-0]")
@click.option("--concurrency", type=click.IntRange(1), help="Requests in flight at most.")
@click.option("--memory", help="Memory of its server at most, as 512Mi.")
@click.option("--artifacts", help="Bytes of artifacts at most, as 20Gi.")
@cluster_command
def create(
    api: "Api",
    names: Sequence[str],
    source: IO[str] | None,
    tier: str,
    cell: str | None,
    as_json: bool,
    **limits: Any,
) -> None:
    """Ask for tenants, wait for them, show each one's token, once."""
    from mlfleet.cluster import fleet

    lines = (line.partition("#")[0].strip() for line in source or ())
    wanted = [*names, *filter(None, lines)]
    if not wanted:
        raise click.UsageError("name a tenant, or give --file with one name a line")
    spec: Document = {"tier": tier, **({"cell": cell} if cell else {})}
    if quota := {key: value for key, value in limits.items() if value is not None}:
        spec["quota"] = quota
    with progress(f"creating {len(wanted)} tenants"):
        rows = [dataclasses.asdict(one) for one in fleet.create_tenants(api, wanted, spec)]
    if as_json:
        print_json(rows[0] if len(names) == 1 and source is None else rows)
        return
    for row in rows:
        is_there = f"{row['name']} is there already: nothing was changed  {row['url']}"
        click.echo(f"{row['name']}  {row['url']}  {row['token']}" if row["created"] else is_there)


@tenant.command("list")
@cluster_command
def list_tenants(api: "Api", as_json: bool) -> None:
    """List all tenants by name."""
    from mlfleet.cluster.api import TENANTS

    rows = [_summary(one) for one in api.list(TENANTS)]
    if as_json:
        print_json(rows)
    else:
        header = ["TENANT", "TIER", "CELL", "STATE", "READY", "LAST WAKE", "URL"]
        texts = [{**row, "last_wake": ago(row["last_wake"], time.time())} for row in rows]
        click.echo(table(header, [list(row.values()) for row in texts]))


def _summary(one: "Document") -> dict[str, Any]:
    status = one.get("status", {})
    ready = [c["status"] for c in status.get("conditions", []) if c["type"] == "Ready"]
    return {
        "name": one["metadata"]["name"],
        "tier": one["spec"].get("tier"),
        "cell": status.get("cell"),
        "state": status.get("state"),
        "ready": ready[0] if ready else None,
        "last_wake": status.get("lastWake"),
        "url": status.get("url"),
    }


@tenant.command()
@click.argument("name")
@cluster_command
def show(api: "Api", name: str, as_json: bool) -> None:
    """Show one tenant: what was asked for, and what the operator says."""
    from mlfleet.cluster import fleet

    found = fleet.tenant(api, name)
    document = {"name": name, "spec": found["spec"], "status": found.get("status", {})}
    if as_json:
        print_json(document)
        return
    click.echo(f"{'name':15} {name}")
    for part in (document["spec"], document["status"]):
        for key, value in part.items():
            if key != "conditions":
                click.echo(f"{key:15} {value}")
    for condition in document["status"].get("conditions", []):
        click.echo(f"{condition['type'].lower():15} {condition['status']}: {condition['message']}")


@tenant.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_command
def delete(api: "Api", name: str, yes: bool, as_json: bool) -> None:
    """Delete a tenant with its database, artifacts and tokens."""
    from mlfleet.cluster import fleet

    fleet.tenant(api, name)
    if not yes:
        click.confirm(f"Delete {name} with all its runs, models and artifacts?", abort=True)
    with progress(f"deleting {name}"):
        fleet.delete_tenant(api, name)
    if as_json:
        print_json({"name": name, "deleted": True})
    else:
        click.echo(f"{name} is deleted: nothing of it is left")


@tenant.command()
@click.argument("name")
@click.option("--cell", required=True, help="Where it shall be served.")
@cluster_command
def move(api: "Api", name: str, cell: str, as_json: bool) -> None:
    """Let another cell serve a tenant; its data stay where they are."""
    from mlfleet.cluster import fleet

    with progress(f"moving {name}"):
        url = fleet.move_tenant(api, name, cell)
    if as_json:
        print_json({"name": name, "cell": cell, "url": url})
    else:
        click.echo(f"{name} is served by {cell}: {url}")


@click.group()
def token() -> None:
    """The token in a tenant's Secret."""


@token.command()
@click.argument("tenant")
@cluster_command
def rotate(api: "Api", tenant: str, as_json: bool) -> None:
    """Give TENANT's Secret another token and show it; the old one ends within seconds."""
    from mlfleet.cluster import fleet

    with progress(f"waiting for the operator to make a token for {tenant}"):
        text = fleet.rotate_token(api, tenant)
    if as_json:
        print_json({"tenant": tenant, "token": text})
    else:
        click.echo(f"{tenant}  {text}")


@click.group()
def cell() -> None:
    """Cells: the Knative Services that tenants share."""


@cell.command("list")
@cluster_command
def list_cells(api: "Api", as_json: bool) -> None:
    """List all cells, and what each may grow to."""
    from mlfleet.cluster import cells, fleet

    rows = [
        {
            "name": one["metadata"]["name"],
            "tier": one["metadata"].get("labels", {}).get(cells.TIER),
            "ready": cells.is_ready(one),
            "max_awake": int(cells.setting(one, "MLFLEET_MAX_AWAKE")),
            "max_replicas": cells.max_replicas(one),
            "url": cells.url(one),
        }
        for one in fleet.list_cells(api)
    ]
    if as_json:
        print_json(rows)
    else:
        header = ["CELL", "TIER", "READY", "MAX AWAKE", "MAX REPLICAS", "URL"]
        click.echo(table(header, [list(row.values()) for row in rows]))


@cell.command()
@click.argument("name")
@click.option("--max-awake", type=click.IntRange(1), help="Tenants awake at once per replica.")
@click.option("--max-replicas", type=click.IntRange(1), help="Pods at most.")
@click.option("--memory", help="Memory of a pod at most, as 2Gi.")
@cluster_command
def add(api: "Api", name: str, as_json: bool, **size: Any) -> None:
    """Make a cell like cell-0; refused if Postgres has not enough connections for it."""
    from mlfleet.cluster import fleet
    from mlfleet.cluster.api import ConflictError

    try:
        fleet.add_cell(api, name, **size)
        said = f"{name} is made: `mlfleet --cluster cell list` shows when it is ready"
    except ConflictError:
        said = f"{name} is there already: nothing was changed"
    if as_json:
        print_json({"name": name, "message": said})
    else:
        click.echo(said)


@cell.command()
@click.argument("name")
@cluster_command
def remove(api: "Api", name: str, as_json: bool) -> None:
    """Remove a cell that serves nobody any more."""
    from mlfleet.cluster import fleet

    fleet.remove_cell(api, name)
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        click.echo(f"{name} is removed")


@click.command()
@cluster_command
def doctor(api: "Api", as_json: bool) -> None:
    """Check Knative, its flags, storage, secrets, cells and budget; say how to mend each."""
    from mlfleet.cluster import checks

    findings = list(checks.examine(api))
    problems = sum(one.verdict == "problem" for one in findings)
    if as_json:
        rows = [dataclasses.asdict(one) for one in findings]
        print_json({"problems": problems, "findings": rows})
    else:
        for one in findings:
            click.echo(f"{one.verdict:8} {one.check:10} {one.message}")
        click.echo(f"\n{problems} problem{'s' if problems != 1 else ''}")
    if problems:
        sys.exit(FAILED)
