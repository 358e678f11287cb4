"""`mlfleet tenant`: who is registered, and what they own."""

from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from mlfleet.cli.options import Fleet, fleet_command
from mlfleet.cli.output import print_json, progress, size, table
from mlfleet.cli.sizes import Size

if TYPE_CHECKING:
    from mlfleet.catalogue.models import CreatedTenant, Quota, Tenant, Tier


@click.group(short_help="Create, list, show, delete, back up, restore.")
def tenant() -> None:
    """Tenants: register, look at, back up, delete."""


@tenant.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--file", "source", type=click.File(), help="Names, one a line; - is stdin.")
@click.option(
    "--tier", type=click.Choice(["shared", "dedicated"]), default="shared", show_default=True
)
@click.option("--concurrency", type=click.IntRange(1), help="Requests in flight, at most.")
@click.option(
    "--memory",
    "memory_bytes",
    type=Size(),
    help="Of its instance, as 512MiB.",
)
@click.option("--artifact-bytes", type=Size(), help="Artifacts at most, as 100GiB; 0: no limit.")
@click.option("--artifact-uri", help="s3://BUCKET/PREFIX instead of the fleet's own folder.")
@fleet_command
def create(
    fleet: Fleet,
    names: Sequence[str],
    source: IO[str] | None,
    tier: "Tier",
    artifact_uri: str | None,
    as_json: bool,
    **limits: int | None,
) -> None:
    """Register tenants and show each one's token, once; again says so and changes nothing.

    A NAME is a DNS label: 2 to 63 lower-case letters, digits and hyphens. Nothing is made for a
    tenant before its first request but a row.
    """
    wanted = [*names, *_names(source)]
    if not wanted:
        raise click.UsageError("name a tenant, or give --file with one name a line")
    with progress(f"creating {len(wanted)} tenants"):
        created = fleet.catalogue.create_tenants(
            wanted, tier=tier, quota=_quota(limits), artifact_uri=artifact_uri
        )
    rows = [_created(fleet, row) for row in created]
    if as_json:
        print_json(rows[0] if len(names) == 1 and source is None else rows)
    else:
        click.echo("\n".join(_created_line(row) for row in rows))


def _quota(limits: dict[str, int | None]) -> "Quota":
    from mlfleet.catalogue.models import Quota

    return Quota(**{name: value for name, value in limits.items() if value is not None})


def _names(source: IO[str] | None) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in source or ())
    return [line for line in lines if line]


def _created(fleet: Fleet, row: "CreatedTenant") -> dict[str, Any]:
    return {
        "name": row.name,
        "url": fleet.url(row.name),
        "token": row.token,
        "created": row.created,
    }


def _created_line(row: dict[str, Any]) -> str:
    if not row["created"]:
        return f"{row['name']} is there already: nothing was changed  {row['url']}"
    return f"{row['name']}  {row['url']}  {row['token']}"


@tenant.command("list")
@fleet_command
def list_tenants(fleet: Fleet, as_json: bool) -> None:
    """List all tenants by name."""
    rows = [_summary(fleet, row) for row in fleet.catalogue.tenants()]
    if as_json:
        print_json(rows)
    else:
        header = ["TENANT", "TIER", "CELL", "STATE", "MLFLOW", "URL"]
        click.echo(table(header, [list(row.values()) for row in rows]))


def _summary(fleet: Fleet, row: "Tenant") -> dict[str, Any]:
    return {
        "name": row.name,
        "tier": row.tier,
        "cell": row.cell,
        "state": row.state,
        "mlflow_version": row.mlflow_version,
        "url": fleet.url(row.name),
    }


@tenant.command()
@click.argument("name")
@fleet_command
def show(fleet: Fleet, name: str, as_json: bool) -> None:
    """Show one tenant: limits, places, tokens."""
    found = fleet.tenant(name)
    quota = found.quota
    document = {
        **_summary(fleet, found),
        "id": found.id,
        "artifacts": found.artifact_uri or str(fleet.folder.artifacts / str(found.id)),
        "quota": {
            "concurrency": quota.concurrency,
            "memory_bytes": quota.memory_bytes,
            "artifact_bytes": quota.artifact_bytes,
        },
        "tokens": [
            {"name": t.name, "access": t.access, "expires_at": t.expires_at} for t in found.tokens
        ],
    }
    if as_json:
        print_json(document)
        return
    document["quota"] = (
        f"{quota.concurrency} requests at once, {size(quota.memory_bytes)} of memory,"
        f" {size(quota.artifact_bytes) if quota.artifact_bytes else 'any'} artifacts"
    )
    document["tokens"] = ", ".join(f"{t.name} ({t.access})" for t in found.tokens) or "none"
    for key, value in document.items():
        click.echo(f"{key.replace('_', ' '):15} {value}")


@tenant.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@fleet_command
def delete(fleet: Fleet, name: str, yes: bool, as_json: bool) -> None:
    """Delete a tenant for good: database, role, artifacts, tokens, log.

    Requests that are running finish first; new ones are refused at once.
    """
    found = fleet.tenant(name)
    if not yes:
        click.confirm(f"Delete {name} with all its runs and artifacts?", abort=True, err=True)
    with progress(f"deleting {name}"):
        # Refused from here on, so that nothing wakes it again; then let it finish.
        fleet.catalogue.set_state(name, "deleting")
        fleet.cell_of(name).evict(name)
        fleet.provisioner.delete(name, fleet.folder.artifacts)
        (fleet.folder.logs / f"{name}.log").unlink(missing_ok=True)
    if as_json:
        print_json({"name": name, "id": found.id, "deleted": True})
    else:
        click.echo(f"{name} is deleted")


@tenant.command()
@click.argument("name")
@click.argument("target", type=click.Path(path_type=Path))
@fleet_command
def backup(fleet: Fleet, name: str, target: Path, as_json: bool) -> None:
    """Write a tenant, asleep or awake, to TARGET: a new folder, or one file if it ends in .tar.

    It holds the database as of one moment, the artifacts, and a manifest with checksums.
    """
    from mlfleet.catalogue.backup import backup as back_up

    with progress(f"backing {name} up"):
        facts = back_up(fleet.provisioner, name, fleet.folder.artifacts, target.absolute())
    if as_json:
        print_json({"name": name, "target": str(target.absolute()), **facts})
    else:
        click.echo(f"{name} is in {target}: the database and {facts['file_count']} files")


@tenant.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.option("--as", "as_name", metavar="NAME", help="Restore under another name.")
@fleet_command
def restore(fleet: Fleet, source: Path, as_name: str | None, as_json: bool) -> None:
    """Make a tenant from a backup and show its new token; SOURCE is checked before it is used."""
    from mlfleet.catalogue.backup import restore as restore_tenant

    with progress(f"restoring {source}"):
        created = restore_tenant(
            fleet.provisioner, source.absolute(), fleet.folder.artifacts, as_name
        )
    row = _created(fleet, created)
    if as_json:
        print_json(row)
    else:
        click.echo(_created_line(row))
