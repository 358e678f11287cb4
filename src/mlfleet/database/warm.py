"""The database that zygotes warm up on: one for all cells, kept, lent to a role made per start.

Dropping a database makes Postgres write everything to disk first, so a start never drops one. What
is secret is the role: its password lives for one start, ends by itself within the hour if the
process was killed, and the role is gone after the start.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator

from psycopg2 import sql

from mlfleet.database import clone, template
from mlfleet.database.connect import Connection, connect
from mlfleet.database.scram import verifier
from mlfleet.database.sessions import Sessions
from mlfleet.database.statement import column, database_exists, role_exists, run

LEND_S = 3600
"""Longest life of a role's password; warming takes seconds."""
KEPT_BYTES = 64 * 2**20
"""Size above which the rows of past starts are removed; one start leaves some 100 kB."""
LOCK = 0x6D6C6677
_GROUP = "mlfleet_warmer"
_ROLE = "mlfleet_warm_"
_KEPT_TABLES = ("alembic_version", "experiments", "workspaces")


def name(version: str) -> str:
    """Return the name of the database for one MLflow version and template."""
    return template.template_name(version).replace("_template_", "_warm_")


@contextlib.contextmanager
def lent(sessions: Sessions, uri: str, version: str) -> Iterator[tuple[str, str, str]]:
    """Lend the database: its name, a role for one start, the role's password."""
    role, password = f"{_ROLE}{int(time.time())}_{secrets.token_hex(4)}", secrets.token_hex(32)
    with sessions.lend_locked(LOCK, 0) as connection:
        _sweep(connection)
        _ensure(connection, name(version))
        _shrink(connection, uri, name(version))
        run(connection, "CREATE ROLE {} LOGIN PASSWORD {} VALID UNTIL {} CONNECTION LIMIT "
            f"{clone.ROLE_CONNECTIONS} IN ROLE {template.GROUP_ROLE}, {_GROUP}",
            sql.Identifier(role), sql.Literal(verifier(password)),
            sql.Literal(time.strftime("%F %TZ", time.gmtime(time.time() + LEND_S))))  # fmt: skip
        # Warming commits some twenty times, nothing of it worth a wait for the disk (an SD card's
        # takes 10 ms and more each).
        run(connection, "ALTER ROLE {} SET synchronous_commit = off", sql.Identifier(role))
    try:
        yield name(version), role, password
    finally:
        with sessions.lend() as connection:
            _end(connection, role)


def _ensure(connection: Connection, database: str) -> None:
    """Make the database unless it is there; every step again, as one may have been cut short."""
    if not role_exists(connection, _GROUP):
        run(connection, f"CREATE ROLE {_GROUP} NOLOGIN")
    if not database_exists(connection, database):
        clone.create(connection, database, database.replace("_warm_", "_template_"))
    clone.open_to_role(connection, database, _GROUP)


def _shrink(connection: Connection, uri: str, database: str) -> None:
    """Remove what earlier starts wrote, if it is much and no other zygote warms up right now."""
    is_large = "SELECT 1 WHERE pg_database_size(%s) > %s"
    if not column(connection, is_large, database, KEPT_BYTES) or _roles(connection):
        return
    inside = connect(uri, database)
    try:
        tables = column(
            inside,
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> ALL (%s)",
            list(_KEPT_TABLES),
        )
        every = sql.SQL(", ").join(sql.Identifier("public", table) for table in tables)
        run(inside, "TRUNCATE {}; DELETE FROM public.experiments WHERE experiment_id <> 0", every)
    finally:
        inside.close()


def _roles(connection: Connection) -> list[str]:
    return column(connection, "SELECT rolname FROM pg_roles WHERE rolname ~ %s", rf"^{_ROLE}\d+_")


def _sweep(connection: Connection) -> None:
    """Drop the roles of processes that were killed while they had one."""
    for role in _roles(connection):
        if int(role.split("_")[2]) < time.time() - LEND_S:
            _end(connection, role)


def _end(connection: Connection, role: str) -> None:
    clone.lock_role(connection, role)
    run(connection, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s",
        values=(role,))  # fmt: skip
    run(connection, "DROP ROLE IF EXISTS {}", sql.Identifier(role))
