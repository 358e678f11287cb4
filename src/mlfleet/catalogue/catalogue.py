"""The list of tenants: who they are, which tokens open them, what state they are in.

Synchronous; the gateway calls it in threads. Every public method is one transaction. Changes are
polled (`changed_since`), not listened for: LISTEN does not work through a transaction pooler.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert

from mlfleet.catalogue import rows
from mlfleet.catalogue.connection import CatalogueDatabase
from mlfleet.catalogue.models import (
    AuditRecord,
    AuditRow,
    CellRow,
    CreatedTenant,
    Quota,
    State,
    Tenant,
    TenantRow,
    Tier,
    TokenRow,
)
from mlfleet.catalogue.names import TenantName, label, tenant_name
from mlfleet.catalogue.tokens import access_of, digest, new_token
from mlfleet.database.template import mlflow_version
from mlfleet.errors import FleetError, UnknownTokenError


class Catalogue:
    """The catalogue of one fleet.

    Args:
        admin_uri: the administrator's address, whatever database it names; the catalogue is the
            database `mlfleet_catalogue` on that server.
    """

    def __init__(self, admin_uri: str) -> None:
        self._database = CatalogueDatabase(admin_uri)
        self._begin = self._database.begin

    def prepare(self) -> None:
        """Create the catalogue's database if it is missing and bring its schema up to date."""
        self._database.prepare()

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        self._database.close()

    # Tenants

    def create_tenants(
        self,
        names: Sequence[str],
        *,
        tier: Tier = "shared",
        cell: str = "cell-0",
        quota: Quota = Quota(),  # noqa: B008 - frozen
        artifact_uri: str | None = None,
        actor: str = "operator",
    ) -> list[CreatedTenant]:
        """Register tenants, each with a first read-write token named `default`.

        One that exists is not an error: it is reported with `created=False` and left as it is.
        All or nothing: one bad name refuses the whole call.

        Returns:
            One entry per distinct name, in the order given.
        """
        wanted = list(dict.fromkeys(tenant_name(name) for name in names))
        label(cell, "cell")
        tokens = [new_token() for _ in wanted]
        with self._begin() as connection:
            new_cell = insert(CellRow).values(name=cell, tier=tier).on_conflict_do_nothing()
            connection.execute(new_cell)
            common = {
                "tier": tier, "cell": cell, "mlflow_version": mlflow_version(),
                "concurrency": quota.concurrency, "memory_bytes": quota.memory_bytes,
                "artifact_bytes": quota.artifact_bytes, "artifact_uri": artifact_uri,
            }  # fmt: skip
            ids = rows.insert_tenants(connection, wanted, common)
            fresh = [
                (ids[name], digest(token))
                for name, token in zip(wanted, tokens, strict=True)
                if name in ids
            ]
            rows.insert_first_tokens(connection, fresh)
            rows.note(connection, actor, "tenant.create", [name for name in wanted if name in ids])
            there = {n: i for n, i in rows.ids_of(connection, wanted).items() if n not in ids}
        return [
            CreatedTenant(name, ids[name], token, True)
            if name in ids
            else CreatedTenant(name, there[name], None, False)
            for name, token in zip(wanted, tokens, strict=True)
        ]

    def tenant(self, name: str) -> Tenant | None:
        """Return a tenant with its tokens, or None if none of that name is registered."""
        with self._begin() as connection:
            return next(iter(rows.tenants_where(connection, TenantRow.name == name)), None)

    def tenants(self, *, cell: str | None = None) -> list[Tenant]:
        """Return all tenants (of a cell), by name."""
        with self._begin() as connection:
            return rows.tenants_where(
                connection, TenantRow.cell == cell if cell else sqlalchemy.true()
            )

    def count_by_state(self) -> dict[str, int]:
        """Return how many tenants are in each state that occurs."""
        counted = select(TenantRow.state, func.count()).group_by(TenantRow.state)
        with self._begin() as connection:
            return {row[0]: row[1] for row in connection.execute(counted)}

    def changed_since(self, cursor: int | None) -> tuple[frozenset[TenantName], int]:
        """Return the names whose tenant or tokens changed, deleted ones too, and the next cursor.

        Args:
            cursor: what the last call returned; None to begin, which returns no name. A name may
                be returned twice, never missed, whatever the clocks do.
        """
        statement = text(
            "SELECT pg_snapshot_xmin(s)::text::bigint, "
            "ARRAY(SELECT tenant::text FROM changes WHERE transaction >= :cursor"
            " AND transaction < pg_snapshot_xmax(s)::text::bigint)"
            " FROM pg_current_snapshot() AS s"
        )
        with self._begin() as connection:
            upto, names = connection.execute(
                statement, {"cursor": 2**62 if cursor is None else cursor}
            ).one()
        return frozenset(TenantName(name) for name in names), upto

    def states(self, names: Iterable[str]) -> dict[str, str]:
        """Return the state of each of these tenants that is registered."""
        found = select(TenantRow.name, TenantRow.state).where(TenantRow.name == func.any([*names]))
        with self._begin() as connection:
            return {row.name: row.state for row in connection.execute(found)}

    def note_wakes(self, ages_s: Mapping[int, float]) -> None:
        """Note how many seconds ago tenants, by id, woke last; those that are gone are left out."""
        with self._begin() as connection:
            rows.insert_wakes(connection, ages_s)

    def woken_since(self, cursor: int) -> tuple[dict[str, datetime.datetime], int]:
        """Return the last wakes that were noted since, by name, and the next cursor.

        Args:
            cursor: what the last call returned; 0 returns all. None is missed, as with
                `changed_since`.
        """
        with self._begin() as connection:
            return rows.wakes_since(connection, cursor)

    def set_state(self, name: str, state: State, *, expect: Sequence[State] = ()) -> Tenant:
        """Move a tenant to a state.

        Args:
            expect: states it must be in now; empty means any.

        Raises:
            UnknownTenantError: no such tenant.
            FleetError: it is in another state.
        """
        return self.change(name, {"state": state}, expect=expect)

    def set_quota(self, name: str, quota: Quota, *, actor: str = "operator") -> Tenant:
        """Give a tenant other limits; a gateway knows within its polling interval."""
        limits = {
            "concurrency": quota.concurrency,
            "memory_bytes": quota.memory_bytes,
            "artifact_bytes": quota.artifact_bytes,
        }
        return self.change(name, limits, actor=actor, action="tenant.quota")

    def move(self, name: str, cell: str, *, tier: Tier, actor: str = "operator") -> Tenant:
        """Let another cell serve a tenant; database and files stay where they are."""
        row = {"name": label(cell, "cell"), "tier": tier}
        with self._begin() as connection:
            connection.execute(insert(CellRow).values(**row).on_conflict_do_nothing())
        return self.change(name, {"cell": cell, "tier": tier}, actor=actor, action="tenant.move")

    def change(
        self,
        name: str,
        values: Mapping[str, object],
        *,
        expect: Sequence[State] = (),
        actor: str = "mlfleet",
        action: str | None = None,
    ) -> Tenant:
        """Set columns of a tenant's row; with an action, note it in the audit log."""
        with self._begin() as connection:
            row = connection.execute(
                select(TenantRow.id, TenantRow.state).where(TenantRow.name == name)
                .with_for_update()
            ).one_or_none()  # fmt: skip
            if row is None:
                raise rows.unknown(name)
            if expect and row.state not in expect:
                raise FleetError(f"tenant {name!r} is {row.state}, not {' or '.join(expect)}")
            connection.execute(update(TenantRow).where(TenantRow.id == row.id).values(**values))
            if action:
                rows.note(connection, actor, action, [name], dict(values))
            return rows.tenants_where(connection, TenantRow.id == row.id)[0]

    def forget(self, tenant_id: int, *, actor: str = "operator") -> None:
        """Delete a tenant's row and tokens; its database and files are provision.delete's."""
        with self._begin() as connection:
            gone = connection.execute(
                delete(TenantRow).where(TenantRow.id == tenant_id).returning(TenantRow.name)
            ).scalar_one_or_none()
            if gone is not None:
                rows.note(connection, actor, "tenant.delete", [gone], {"id": tenant_id})

    # Tokens

    def create_token(
        self,
        tenant: str,
        name: str,
        *,
        access: str = "read-write",
        expires_at: datetime.datetime | None = None,
        actor: str = "operator",
    ) -> str | None:
        """Make a token; return it (shown only now), or None if one of that name exists already."""
        _check_expiry(expires_at)
        token = new_token()
        row = {"name": label(name, "token"), "sha256_hex": digest(token),
               "access": access_of(access), "expires_at": expires_at}  # fmt: skip
        with self._begin() as connection:
            tenant_id = rows.id_of(connection, tenant)
            made = connection.execute(
                insert(TokenRow).values(tenant_id=tenant_id, **row)
                .on_conflict_do_nothing().returning(TokenRow.id)
            ).scalar_one_or_none()  # fmt: skip
            if made is None:
                return None
            detail = {"token": name, "access": access, "expires_at": str(expires_at or "never")}
            rows.note(connection, actor, "token.create", [tenant], detail)
        return token

    def put_tokens(
        self,
        tenants: Sequence[str],
        name: str,
        expires_at: datetime.datetime,
        *,
        actor: str = "operator",
    ) -> dict[str, str]:
        """Give each of these tenants a new token of that name; an older one of it ends.

        Returns:
            The token of each tenant, shown only now.
        """
        _check_expiry(expires_at)
        name = label(name, "token")
        tokens = {tenant: new_token() for tenant in tenants}
        with self._begin() as connection:
            ids = rows.ids_of(connection, list(tokens))
            for tenant in tokens:
                if tenant not in ids:
                    raise rows.unknown(tenant)
            hashes = {ids[tenant]: digest(token) for tenant, token in tokens.items()}
            rows.put_tokens(connection, name, hashes, expires_at)
            rows.note(connection, actor, "token.put", list(tokens), {"token": name})
        return tokens

    def rotate_token(self, tenant: str, name: str, *, actor: str = "operator") -> str:
        """Give a token a new value; the old one is refused from the next poll on."""
        token = new_token()
        with self._begin() as connection:
            self._change_token(
                connection, tenant, name,
                update(TokenRow).values(sha256_hex=digest(token), created_at=func.now()),
            )  # fmt: skip
            rows.note(connection, actor, "token.rotate", [tenant], {"token": name})
        return token

    def revoke_token(self, tenant: str, name: str, *, actor: str = "operator") -> None:
        """Delete a token; gateways refuse it within seconds."""
        with self._begin() as connection:
            self._change_token(connection, tenant, name, delete(TokenRow))
            rows.note(connection, actor, "token.revoke", [tenant], {"token": name})

    def _change_token(
        self,
        connection: sqlalchemy.Connection,
        tenant: str,
        name: str,
        statement: sqlalchemy.Update | sqlalchemy.Delete,
    ) -> None:
        tenant_id = rows.id_of(connection, tenant)
        done = connection.execute(
            statement.where(TokenRow.tenant_id == tenant_id, TokenRow.name == name)
        )
        if done.rowcount == 0:
            raise UnknownTokenError(
                f"tenant {tenant!r} has no token named {name!r}:"
                f" `mlfleet token list {tenant}` shows all"
            )

    # Audit

    def audit(
        self, actor: str, action: str, tenant: str | None, detail: Mapping[str, object]
    ) -> None:
        """Note what somebody did; never put a secret into `detail`."""
        with self._begin() as connection:
            rows.note(connection, actor, action, [tenant], dict(detail))

    def audit_log(self, tenant: str | None = None, *, most: int = 100) -> list[AuditRecord]:
        """Return the newest records (of a tenant), newest first."""
        statement = select(
            AuditRow.at, AuditRow.actor, AuditRow.action, AuditRow.tenant, AuditRow.detail
        )
        if tenant is not None:
            statement = statement.where(AuditRow.tenant == tenant)
        with self._begin() as connection:
            found = connection.execute(statement.order_by(AuditRow.id.desc()).limit(most))
            return [AuditRecord(*row) for row in found]


def _check_expiry(expires_at: datetime.datetime | None) -> None:
    if expires_at is None:
        return
    if expires_at.tzinfo is None:
        raise FleetError(f"expiry {expires_at} has no time zone: write it like {expires_at}+00:00")
    if expires_at <= datetime.datetime.now(datetime.UTC):
        raise FleetError(f"expiry {expires_at} is in the past")
