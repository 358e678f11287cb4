"""What the fleet does to Postgres as its administrator: clone, open, lock and drop databases.

The administrator is a superuser, or a role with CREATEDB and CREATEROLE (a managed Postgres), and
connects straight, never through a transaction pooler: cloning needs session locks. Everything of a
tenant is named by its id in the catalogue: ids are never used again and always fit, names may not.
Each step can be repeated, so a crash in the middle is mended by the next call.
"""

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from psycopg2 import sql

from mlfleet.database import clone, template, warm
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.connect import Connection, libpq_uri
from mlfleet.database.scram import verifier
from mlfleet.database.sessions import Sessions
from mlfleet.database.statement import column, database_exists, readable, run

CLONES_AT_ONCE = 4
"""Administrator connections one process opens at most; more do not clone faster (2 cores)."""
_TENANT_LOCK = 0x6D6C6674


def database_name(tenant_id: int) -> str:
    """Return the name of a tenant's database, which is also its role's."""
    return f"mlfleet_t{tenant_id}"


class Admin:
    """An administrator of one Postgres server; may be shared by threads.

    Args:
        uri: `postgresql://user:password@host:port/postgres`.
        pooler_address: HOST:PORT that tenants connect through instead of the server itself.
    """

    def __init__(self, uri: str, pooler_address: str | None = None) -> None:
        self.uri = libpq_uri(uri)
        address = urlsplit(f"//{pooler_address}" if pooler_address else self.uri)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 5432
        self._sessions = Sessions(self.uri, CLONES_AT_ONCE)

    def prepare(self, version: str | None = None) -> list[str]:
        """Make the group role and the template of an MLflow version unless they are there.

        Args:
            version: default is the installed MLflow.

        Returns:
            Sentences about what this server leaves open to tenants; empty is good.
        """
        with readable("prepare the template"):
            template.prepare(self.uri, version or template.mlflow_version())
            return self._close_others()

    def clone(self, tenant_id: int, password: str, version: str | None = None) -> bool:
        """Make a tenant's role and database unless they are there; safe when two do it at once.

        Returns:
            Whether the database is new.

        Raises:
            FleetError: the template is missing, or the administrator may not do it.
            DatabaseAwayError: Postgres is away, or the template is busy; try again.
        """
        name = database_name(tenant_id)
        source = template.template_name(version or template.mlflow_version())
        with readable(f"clone a database for tenant id {tenant_id}"), self._locked(tenant_id) as c:
            clone.ensure_role(c, name, password)
            is_new = not database_exists(c, name)
            if is_new:
                clone.create(c, name, source)
            clone.open_to_role(c, name, name)
        return is_new

    @contextlib.contextmanager
    def filling(self, tenant_id: int, password: str) -> Iterator[None]:
        """Make a tenant's database empty, for the body to fill as the administrator.

        Closed to everybody else until the body is done; then the grants are given and the
        tenant's role is let in.
        """
        name = database_name(tenant_id)
        with readable(f"make database {name}"), self._locked(tenant_id) as connection:
            clone.ensure_role(connection, name, password)
            run(connection, "CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false",
                sql.Identifier(name))  # fmt: skip
            clone.close_to_others(connection, name)
            yield
            template.grant(self.uri, name)
            clone.open_to_role(connection, name, name)

    def access(self, tenant_id: int, password: str) -> DatabaseAccess:
        """Return what a tenant's instance needs to connect."""
        name = database_name(tenant_id)
        return DatabaseAccess(self._host, self._port, name, name, password)

    def set_password(self, tenant_id: int, password: str) -> None:
        """Change a role's password; sessions that are open stay open."""
        role = sql.Identifier(database_name(tenant_id))
        with readable("change a password"), self.session() as connection:
            run(connection, "ALTER ROLE {} PASSWORD {}", role, sql.Literal(verifier(password)))

    def drop(self, tenant_id: int) -> None:
        """Remove a tenant's databases (copies of an upgrade too) and role, cutting sessions off."""
        name = database_name(tenant_id)
        with readable(f"drop {name}"), self._locked(tenant_id) as connection:
            clone.drop(connection, name)

    def exists(self, tenant_id: int) -> bool:
        """Return whether the tenant's database is there."""
        with readable("look for a database"), self.session() as connection:
            return database_exists(connection, database_name(tenant_id))

    @contextlib.contextmanager
    def throwaway(self, version: str | None = None) -> Iterator[DatabaseAccess]:
        """Lend the kept database for warming a zygote, to a role that is gone afterwards."""
        version = version or template.mlflow_version()
        with readable("lend the database for warming up"), warm.lent(
            self._sessions, self.uri, version
        ) as (name, role, password):  # fmt: skip
            yield DatabaseAccess(self._host, self._port, name, role, password)

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """Lend an administrator's connection in autocommit mode; waits while all are lent."""
        with self._sessions.lend() as connection:
            yield connection

    def close(self) -> None:
        """Close idle connections."""
        self._sessions.close()

    def _locked(self, tenant_id: int) -> contextlib.AbstractContextManager[Connection]:
        """Hold the one lock of a tenant's database, across all processes of the fleet."""
        return self._sessions.lend_locked(_TENANT_LOCK, tenant_id)

    def _close_others(self) -> list[str]:
        """Take CONNECT on the server's own databases from PUBLIC; say where that failed."""
        with self.session() as connection:
            # Two that revoke at once fail: "tuple concurrently updated".
            run(connection, "SELECT pg_advisory_lock(%s)", values=(template.PREPARE_LOCK,))
            for name in ("postgres", "template1"):
                # Without ownership this is a warning of Postgres, not an error; checked below.
                run(connection, "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC",
                    sql.Identifier(name), if_allowed=True)  # fmt: skip
            left_open = column(
                connection,
                "SELECT datname FROM pg_database WHERE datallowconn "
                "AND has_database_privilege(%s, oid, 'CONNECT') ORDER BY 1",
                template.GROUP_ROLE,
            )
            run(connection, "SELECT pg_advisory_unlock_all()")
            return [
                f"a tenant's role can connect to database {name!r}: as its owner run "
                f'`REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC`'
                for name in left_open
            ]
