"""What the fleet does to Postgres as its administrator: clone, open, lock and drop databases.

The administrator is a superuser, or a role with CREATEDB and CREATEROLE (a managed Postgres), and
connects straight, never through a transaction pooler: cloning needs session locks. Everything of a
tenant is named by its id in the catalogue: ids are never used again and always fit, names may not.

A clone is closed from its first moment: created without connections, CONNECT taken from PUBLIC
and given to the one role, then opened. Each step can be repeated, so a crash in the middle is
mended by the next call.
"""

import contextlib
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg2
from psycopg2 import errors as pg
from psycopg2 import sql

from mlfleet.database import template
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.connect import Connection, connect, libpq_uri
from mlfleet.database.scram import verifier
from mlfleet.errors import DatabaseAwayError, FleetError

CLONES_AT_ONCE = 4
"""Administrator connections one process opens at most; more do not clone faster (2 cores)."""
ROLE_CONNECTIONS = 6
"""Hard limit per tenant's role: one for its instance, room for a hand-over and for a pooler."""
_TENANT_LOCK = 0x6D6C6674
_WARMUP = "mlfleet_warmup_"


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
        self._slots = threading.BoundedSemaphore(CLONES_AT_ONCE)
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()

    def prepare(self, version: str | None = None) -> list[str]:
        """Make the group role and the template of an MLflow version unless they are there.

        Args:
            version: default is the installed MLflow.

        Returns:
            Sentences about what this server leaves open to tenants; empty is good.
        """
        with _readable("prepare the template"):
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
        with _readable(f"clone a database for tenant id {tenant_id}"), self._locked(tenant_id) as c:
            return self._make(c, name, password, version or template.mlflow_version())

    @contextlib.contextmanager
    def filling(self, tenant_id: int, password: str) -> Iterator[None]:
        """Make a tenant's database empty, for the body to fill as the administrator.

        Closed to everybody else until the body is done; then the grants are given and the
        tenant's role is let in.
        """
        name = database_name(tenant_id)
        with _readable(f"make database {name}"), self._locked(tenant_id) as connection:
            self._ensure_role(connection, name, password)
            _run(connection, "CREATE DATABASE {} TEMPLATE template0 ALLOW_CONNECTIONS false",
                 sql.Identifier(name))  # fmt: skip
            close_to_others(connection, name)
            yield
            template.grant(self.uri, name)
            open_to_role(connection, name, name)

    def access(self, tenant_id: int, password: str) -> DatabaseAccess:
        """Return what a tenant's instance needs to connect."""
        name = database_name(tenant_id)
        return DatabaseAccess(self._host, self._port, name, name, password)

    def set_password(self, tenant_id: int, password: str) -> None:
        """Change a role's password; sessions that are open stay open."""
        role = sql.Identifier(database_name(tenant_id))
        with _readable("change a password"), self.session() as connection:
            _run(connection, "ALTER ROLE {} PASSWORD {}", role, sql.Literal(verifier(password)))

    def drop(self, tenant_id: int) -> None:
        """Remove a tenant's databases (copies of an upgrade too) and role, cutting sessions off."""
        name = database_name(tenant_id)
        with _readable(f"drop {name}"), self._locked(tenant_id) as connection:
            self._drop(connection, name)

    def exists(self, tenant_id: int) -> bool:
        """Return whether the tenant's database is there."""
        with _readable("look for a database"), self.session() as connection:
            return _exists(connection, "pg_database", "datname", database_name(tenant_id))

    @contextlib.contextmanager
    def throwaway(self, version: str | None = None) -> Iterator[DatabaseAccess]:
        """Lend a clone with a role of its own, for warming a zygote; dropped afterwards."""
        name = f"{_WARMUP}{int(time.time())}_{secrets.token_hex(4)}"
        password = secrets.token_hex(32)
        with _readable("clone a throw-away database"), self.session() as connection:
            self._sweep(connection)
            self._make(connection, name, password, version or template.mlflow_version())
        try:
            yield DatabaseAccess(self._host, self._port, name, name, password)
        finally:
            with _readable(f"drop {name}"), self.session() as connection:
                self._drop(connection, name)

    @contextlib.contextmanager
    def session(self) -> Iterator[Connection]:
        """Lend an administrator's connection in autocommit mode; waits while all are lent."""
        with self._slots:
            connection = self._take()
            healthy = False
            try:
                yield connection
                healthy = True
            finally:
                # One that failed may still hold a lock: closing it gives that back.
                if healthy and self._idle.empty():
                    self._idle.put(connection)
                else:
                    connection.close()

    def close(self) -> None:
        """Close idle connections."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()

    def _take(self) -> Connection:
        with contextlib.suppress(queue.Empty):
            connection = self._idle.get_nowait()
            try:
                _run(connection, "SELECT 1")
                return connection
            except psycopg2.Error:
                connection.close()
        return connect(self.uri)

    @contextlib.contextmanager
    def _locked(self, tenant_id: int) -> Iterator[Connection]:
        """Hold the one lock of a tenant's database, across all processes of the fleet."""
        with self.session() as connection:
            _run(connection, "SELECT pg_advisory_lock(%s, %s)", values=(_TENANT_LOCK, tenant_id))
            try:
                yield connection
            finally:
                if not connection.closed:
                    _run(connection, "SELECT pg_advisory_unlock_all()")

    def _make(self, connection: Connection, name: str, password: str, version: str) -> bool:
        self._ensure_role(connection, name, password)
        is_new = not _exists(connection, "pg_database", "datname", name)
        if is_new:
            _create(connection, name, template.template_name(version))
        open_to_role(connection, name, name)
        return is_new

    def _ensure_role(self, connection: Connection, name: str, password: str) -> None:
        role = sql.Identifier(name)
        if _exists(connection, "pg_roles", "rolname", name):
            statement = "ALTER ROLE {} LOGIN PASSWORD {}"
        else:
            statement = f"CREATE ROLE {{}} LOGIN PASSWORD {{}} CONNECTION LIMIT {ROLE_CONNECTIONS}"
            statement += f" IN ROLE {template.GROUP_ROLE}"
        _run(connection, statement, role, sql.Literal(verifier(password)))

    def _drop(self, connection: Connection, name: str) -> None:
        role = sql.Identifier(name)
        if _exists(connection, "pg_roles", "rolname", name):
            _run(connection, "ALTER ROLE {} NOLOGIN", role)
            # Cutting a role's sessions off takes membership in it, which creating it does not give.
            _run(connection, "GRANT {} TO CURRENT_USER", role)
        with connection.cursor() as cursor:
            cursor.execute(
                r"SELECT datname FROM pg_database WHERE datname = %s OR datname LIKE %s",
                (name, name.replace("_", r"\_") + r"\_%"),
            )
            databases = [row[0] for row in cursor.fetchall()]
        for database in databases:
            _run(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", sql.Identifier(database))
        _run(connection, "DROP ROLE IF EXISTS {}", role)

    def _sweep(self, connection: Connection) -> None:
        """Drop throw-away databases that a killed process left an hour ago or longer."""
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT rolname FROM pg_roles WHERE rolname ~ %s AND "
                "split_part(rolname, '_', 3)::bigint < extract(epoch FROM now()) - 3600",
                (rf"^{_WARMUP}\d+_",),
            )
            for (name,) in cursor.fetchall():
                self._drop(connection, name)

    def _close_others(self) -> list[str]:
        """Take CONNECT on the server's own databases from PUBLIC; say where that failed."""
        with self.session() as connection, connection.cursor() as cursor:
            # Two that revoke at once fail: "tuple concurrently updated".
            cursor.execute("SELECT pg_advisory_lock(%s)", (template.PREPARE_LOCK,))
            for name in ("postgres", "template1"):
                # Without ownership this is a warning of Postgres, not an error; checked below.
                _run(connection, "REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM PUBLIC",
                     sql.Identifier(name), if_allowed=True)  # fmt: skip
            cursor.execute(
                "SELECT datname FROM pg_database WHERE datallowconn "
                "AND has_database_privilege(%s, oid, 'CONNECT') ORDER BY 1",
                (template.GROUP_ROLE,),
            )
            left_open = cursor.fetchall()
            cursor.execute("SELECT pg_advisory_unlock_all()")
            return [
                f"a tenant's role can connect to database {name!r}: as its owner run "
                f'`REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC`'
                for (name,) in left_open
            ]


def open_to_role(connection: Connection, database: str, role: str) -> None:
    """Close a database to everybody, then open it to one role."""
    name = sql.Identifier(database)
    _run(connection, "GRANT CONNECT ON DATABASE {} TO {}", name, sql.Identifier(role))
    close_to_others(connection, database)


def close_to_others(connection: Connection, database: str) -> None:
    """Let in its owner and whom CONNECT was given to, and nobody else."""
    name = sql.Identifier(database)
    _run(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
    _run(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS true", name)


def _create(connection: Connection, name: str, source: str, wait_s: float = 30) -> None:
    """Copy the template; a session inside it (vacuum, say) makes Postgres refuse: wait for it."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            _run(connection, "CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false",
                 sql.Identifier(name), sql.Identifier(source))  # fmt: skip
            return
        except pg.DuplicateDatabase:
            return
        except pg.InvalidCatalogName:
            raise FleetError(
                f"the template {source} is missing: run `mlfleet database prepare`"
            ) from None
        except pg.ObjectInUse as exc:
            if time.monotonic() > deadline:
                raise DatabaseAwayError(
                    f"the template {source} is in use: {exc.pgerror}; close the sessions in it"
                ) from None
            time.sleep(0.1)


def _exists(connection: Connection, table: str, column: str, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT FROM {table} WHERE {column} = %s", (name,))
        return bool(cursor.rowcount)


def _run(
    connection: Connection,
    statement: str,
    *parts: sql.Composable,
    values: tuple[object, ...] | None = None,
    if_allowed: bool = False,
) -> None:
    with connection.cursor() as cursor:
        try:
            cursor.execute(sql.SQL(statement).format(*parts) if parts else statement, values)
        except pg.InsufficientPrivilege:
            if not if_allowed:
                raise


@contextlib.contextmanager
def _readable(task: str) -> Iterator[None]:
    """Turn Postgres' errors into ours: for good, or only for now."""
    try:
        yield
    except pg.InsufficientPrivilege as exc:
        raise FleetError(
            f"the administrator may not {task}: {str(exc).splitlines()[0]}; "
            "it must be a superuser or have CREATEDB and CREATEROLE"
        ) from exc
    except pg.UndefinedObject as exc:
        # The group role is made together with the template.
        raise FleetError(f"cannot {task}: {exc}; run `mlfleet database prepare`") from exc
    except psycopg2.OperationalError as exc:
        reason = (str(exc).strip() or "connection lost").splitlines()[0]
        raise DatabaseAwayError(f"Postgres cannot {task} now: {reason}") from exc
