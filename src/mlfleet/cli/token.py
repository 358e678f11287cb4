"""`mlfleet token`: who may use a tenant, and for how long."""

import datetime

import click

from mlfleet.cli.durations import Duration
from mlfleet.cli.options import Fleet, fleet_command
from mlfleet.cli.output import print_json, table


@click.group(short_help="Say who may use a tenant.")
def token() -> None:
    """Tokens of a tenant: named, read-write or read-only, expiring if wanted.

    Only a hash is stored: a token's text is shown once, when it is made.
    """


@token.command()
@click.argument("tenant")
@click.argument("name")
@click.option("--read-only", is_flag=True, help="The token may look but not write.")
@click.option("--expires-in", type=Duration(), help="Such as 12h or 30d.  [default: never]")
@fleet_command
def create(
    fleet: Fleet,
    tenant: str,
    name: str,
    read_only: bool,
    expires_in: datetime.timedelta | None,
    as_json: bool,
) -> None:
    """Make the token NAME for TENANT and show it; again says so and changes nothing."""
    access = "read-only" if read_only else "read-write"
    expires_at = datetime.datetime.now(datetime.UTC) + expires_in if expires_in else None
    text = fleet.catalogue_anywhere.create_token(tenant, name, access=access, expires_at=expires_at)
    _show(tenant, name, text, as_json=as_json)


@token.command("list")
@click.argument("tenant")
@fleet_command
def list_tokens(fleet: Fleet, tenant: str, as_json: bool) -> None:
    """List TENANT's tokens; their texts are nowhere."""
    tokens = fleet.tenant(tenant).tokens
    rows = [{"name": t.name, "access": t.access, "expires_at": t.expires_at} for t in tokens]
    if as_json:
        print_json(rows)
    else:
        click.echo(
            table(
                ["NAME", "ACCESS", "EXPIRES"],
                [[t.name, t.access, t.expires_at or "never"] for t in tokens],
            )
        )


@token.command()
@click.argument("tenant")
@click.argument("name")
@fleet_command
def revoke(fleet: Fleet, tenant: str, name: str, as_json: bool) -> None:
    """End the token NAME of TENANT; it is refused within 5 seconds."""
    fleet.catalogue_anywhere.revoke_token(tenant, name)
    if as_json:
        print_json({"tenant": tenant, "name": name, "revoked": True})
    else:
        click.echo(f"token {name} of {tenant} is revoked; cells refuse it within 5 s")


@token.command()
@click.argument("tenant")
@click.argument("name")
@fleet_command
def rotate(fleet: Fleet, tenant: str, name: str, as_json: bool) -> None:
    """Give the token NAME of TENANT a new text and show it; the old one ends within 5 seconds."""
    _show(tenant, name, fleet.catalogue_anywhere.rotate_token(tenant, name), as_json=as_json)


def _show(tenant: str, name: str, text: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"tenant": tenant, "name": name, "token": text, "created": text is not None})
    elif text is None:
        click.echo(
            f"token {name} of {tenant} is there already: nothing was changed"
            f" (`mlfleet token rotate {tenant} {name}` gives it a new text)"
        )
    else:
        click.echo(text)
