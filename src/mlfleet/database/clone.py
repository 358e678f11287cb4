"""The statements that make, open, close and drop a copy of the template and its role.

A copy is closed from its first moment: created without connections, CONNECT taken from PUBLIC and
given to the one role, then opened. Each step can be repeated.
"""

import time

from psycopg2 import errors as pg
from psycopg2 import sql

from mlfleet.database import template
from mlfleet.database.connect import Connection
from mlfleet.database.scram import verifier
from mlfleet.database.statement import column, role_exists, run
from mlfleet.errors import DatabaseAwayError, FleetError

ROLE_CONNECTIONS = 6
"""Hard limit per tenant's role: one for its instance, room for a hand-over and for a pooler."""

STRATEGY = "file_copy"
"""Each clone syncs its own 640 files. `wal_log`, the default since Postgres 15, leaves them to the
next checkpoint, for which the next DROP DATABASE waits: 24 s after 100 clones, minutes after 400.
It also writes 2 to 5 MB of WAL per clone, and was no quicker (scripts/bench_clones.py)."""


def ensure_role(connection: Connection, name: str, password: str) -> None:
    """Make a tenant's role, or give the one that is there this password."""
    if role_exists(connection, name):
        statement = "ALTER ROLE {} LOGIN PASSWORD {}"
    else:
        statement = f"CREATE ROLE {{}} LOGIN PASSWORD {{}} CONNECTION LIMIT {ROLE_CONNECTIONS}"
        statement += f" IN ROLE {template.GROUP_ROLE}"
    run(connection, statement, sql.Identifier(name), sql.Literal(verifier(password)))


def lock_role(connection: Connection, name: str) -> None:
    """Let nobody log in as a role any more."""
    role = sql.Identifier(name)
    run(connection, "ALTER ROLE {} NOLOGIN", role)
    # Cutting a role's sessions off takes membership in it, which creating it does not give.
    run(connection, "GRANT {} TO CURRENT_USER", role)


def create(connection: Connection, name: str, source: str, wait_s: float = 30) -> None:
    """Copy the template; a session inside it (vacuum, say) makes Postgres refuse: wait for it."""
    statement = "CREATE DATABASE {} TEMPLATE {} ALLOW_CONNECTIONS false"
    if connection.server_version >= 150000:
        statement += f" STRATEGY {STRATEGY}"
    deadline = time.monotonic() + wait_s
    while True:
        try:
            run(connection, statement, sql.Identifier(name), sql.Identifier(source))
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


def open_to_role(connection: Connection, database: str, role: str) -> None:
    """Close a database to everybody, then open it to one role."""
    run(connection, "GRANT CONNECT ON DATABASE {} TO {}",
        sql.Identifier(database), sql.Identifier(role))  # fmt: skip
    close_to_others(connection, database)


def close_to_others(connection: Connection, database: str) -> None:
    """Let in its owner and whom CONNECT was given to, and nobody else."""
    name = sql.Identifier(database)
    run(connection, "REVOKE ALL ON DATABASE {} FROM PUBLIC", name)
    run(connection, "ALTER DATABASE {} ALLOW_CONNECTIONS true", name)


def drop(connection: Connection, name: str) -> None:
    """Remove a tenant's databases (copies of an upgrade too) and role, cutting sessions off."""
    if role_exists(connection, name):
        lock_role(connection, name)
    databases = column(
        connection,
        r"SELECT datname FROM pg_database WHERE datname = %s OR datname LIKE %s",
        name, name.replace("_", r"\_") + r"\_%",
    )  # fmt: skip
    for database in databases:
        run(connection, "DROP DATABASE IF EXISTS {} WITH (FORCE)", sql.Identifier(database))
    run(connection, "DROP ROLE IF EXISTS {}", sql.Identifier(name))
