"""The catalogue's statements: each one function, inside a transaction that the caller holds."""

import datetime
import json
from collections.abc import Mapping, Sequence

import sqlalchemy
from sqlalchemy import func, select, text

from mlfleet.catalogue.models import Quota, Tenant, TenantRow, TokenRow
from mlfleet.catalogue.names import TenantName
from mlfleet.catalogue.tokens import Token
from mlfleet.errors import UnknownTenantError

FIRST_TOKEN = "default"


def unknown(name: str) -> UnknownTenantError:
    """Return the error for a name that is not registered."""
    return UnknownTenantError(
        f"no tenant named {name[:80]!r}: `mlfleet tenant list` shows all, "
        "`mlfleet tenant create NAME` makes one"
    )


def insert_tenants(
    connection: sqlalchemy.Connection, names: Sequence[str], common: Mapping[str, object]
) -> dict[str, int]:
    """Insert in one statement; return the ids of those that were not there.

    Sorted, so that two calls with the same names wait for each other instead of deadlocking.
    """
    columns = ", ".join(common)
    values = ", ".join(f":{column}" for column in common)
    rows = connection.execute(
        text(
            f"INSERT INTO tenants (name, {columns}) SELECT name, {values}"
            " FROM unnest(CAST(:names AS text[])) AS name ORDER BY name"
            " ON CONFLICT (name) DO NOTHING RETURNING name, id"
        ),
        {"names": list(names), **common},
    )
    return {row.name: row.id for row in rows}


def insert_first_tokens(
    connection: sqlalchemy.Connection, tokens: Sequence[tuple[int, str]]
) -> None:
    """Give tenants, by id, their first token, by its hash."""
    connection.execute(
        text(
            "INSERT INTO tokens (tenant_id, name, sha256_hex, access) SELECT t.id, :name, t.sha256,"
            " 'read-write' FROM unnest(CAST(:ids AS int[]), CAST(:hashes AS text[]))"
            " AS t (id, sha256)"
        ),
        {"name": FIRST_TOKEN, "ids": [i for i, _ in tokens], "hashes": [h for _, h in tokens]},
    )


def put_tokens(
    connection: sqlalchemy.Connection,
    name: str,
    hashes: Mapping[int, str],
    expires_at: datetime.datetime,
) -> None:
    """Give tenants, by id, a read-write token of that name, or the one they have a new value."""
    connection.execute(
        text(
            "INSERT INTO tokens (tenant_id, name, sha256_hex, access, expires_at)"
            " SELECT t.id, :name, t.sha256, 'read-write', :expires_at"
            " FROM unnest(CAST(:ids AS int[]), CAST(:hashes AS text[])) AS t (id, sha256)"
            " ORDER BY t.id ON CONFLICT (tenant_id, name) DO UPDATE SET"
            " sha256_hex = excluded.sha256_hex, access = excluded.access,"
            " expires_at = excluded.expires_at, created_at = now()"
        ),
        {"name": name, "ids": list(hashes), "hashes": list(hashes.values()),
         "expires_at": expires_at},
    )  # fmt: skip


def ids_of(connection: sqlalchemy.Connection, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of those names that are registered."""
    rows = connection.execute(
        select(TenantRow.name, TenantRow.id).where(TenantRow.name == func.any(list(names)))
    )
    return {row.name: row.id for row in rows}


def id_of(connection: sqlalchemy.Connection, name: str) -> int:
    """Return a tenant's id, or raise the error for a name that is not registered."""
    found = ids_of(connection, [name]).get(name)
    if found is None:
        raise unknown(name)
    return found


def tenants_where(
    connection: sqlalchemy.Connection, condition: sqlalchemy.ColumnElement[bool]
) -> list[Tenant]:
    """Return tenants with their tokens, by name."""
    tenants, tokens = TenantRow.__table__, TokenRow.__table__
    of: dict[int, list[Token]] = {}
    for row in connection.execute(
        select(tokens).join(tenants, tokens.c.tenant_id == tenants.c.id)
        .where(condition).order_by(tokens.c.name)
    ):  # fmt: skip
        token = Token(row.name, row.sha256_hex, row.access, row.expires_at, row.created_at)
        of.setdefault(row.tenant_id, []).append(token)
    return [
        Tenant(
            id=row.id, name=TenantName(row.name), tier=row.tier, cell=row.cell, state=row.state,
            mlflow_version=row.mlflow_version, password_generation=row.password_generation,
            quota=Quota(row.concurrency, row.memory_bytes, row.artifact_bytes),
            artifact_uri=row.artifact_uri, tokens=tuple(of.get(row.id, ())),
            created_at=row.created_at, changed_at=row.changed_at,
        )
        for row in connection.execute(select(tenants).where(condition).order_by(tenants.c.name))
    ]  # fmt: skip


def insert_wakes(connection: sqlalchemy.Connection, ages_s: Mapping[int, float]) -> None:
    """Note when tenants woke; sorted, so that cells which note the same ones do not deadlock."""
    connection.execute(
        text(
            "INSERT INTO wakes (tenant_id, woken_at, transaction)"
            " SELECT t.id, clock_timestamp() - make_interval(secs => w.age_s),"
            " pg_current_xact_id()::text::bigint"
            " FROM unnest(CAST(:ids AS int[]), CAST(:ages_s AS float8[])) AS w (id, age_s)"
            " JOIN tenants t ON t.id = w.id ORDER BY t.id FOR KEY SHARE OF t"
            " ON CONFLICT (tenant_id) DO UPDATE SET transaction = EXCLUDED.transaction,"
            " woken_at = greatest(wakes.woken_at, EXCLUDED.woken_at)"
        ),
        {"ids": list(ages_s), "ages_s": list(ages_s.values())},
    )


def wakes_since(
    connection: sqlalchemy.Connection, cursor: int
) -> tuple[dict[str, datetime.datetime], int]:
    """Return who woke, by name, in transactions from `cursor` on, and the next cursor."""
    upto, names, times = connection.execute(
        text(
            "SELECT pg_snapshot_xmin(s)::text::bigint,"
            " array(SELECT t.name::text FROM wakes w JOIN tenants t ON t.id = w.tenant_id"
            " WHERE w.transaction >= :cursor ORDER BY w.tenant_id),"
            " array(SELECT w.woken_at FROM wakes w JOIN tenants t ON t.id = w.tenant_id"
            " WHERE w.transaction >= :cursor ORDER BY w.tenant_id)"
            " FROM pg_current_snapshot() AS s"
        ),
        {"cursor": cursor},
    ).one()
    return dict(zip(names, times, strict=True)), upto


def note(
    connection: sqlalchemy.Connection,
    actor: str,
    action: str,
    tenants: Sequence[str | None],
    detail: Mapping[str, object] | None = None,
) -> None:
    """Write one record of the audit log per tenant."""
    if tenants:
        connection.execute(
            text(
                "INSERT INTO audit (actor, action, tenant, detail) SELECT :actor, :action,"
                " unnest(CAST(:tenants AS text[])), CAST(:detail AS jsonb)"
            ),
            {"actor": actor, "action": action, "tenants": list(tenants),
             "detail": json.dumps(detail or {}, default=str)},
        )  # fmt: skip
