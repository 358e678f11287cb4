"""Run an administrator's statements, and turn Postgres' errors into ones a person can act on."""

import contextlib
from collections.abc import Iterator

import psycopg2
from psycopg2 import errors as pg
from psycopg2 import sql

from mlfleet.database.connect import Connection
from mlfleet.errors import DatabaseAwayError, FleetError


def run(
    connection: Connection,
    statement: str,
    *parts: sql.Composable,
    values: tuple[object, ...] | None = None,
    if_allowed: bool = False,
) -> None:
    """Execute a statement; `parts` fill its braces, `values` its placeholders."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(sql.SQL(statement).format(*parts) if parts else statement, values)
        except pg.InsufficientPrivilege:
            if not if_allowed:
                raise


def column(connection: Connection, statement: str, *values: object) -> list[str]:
    """Return the first column of what a query finds."""
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return [row[0] for row in cursor.fetchall()]


def database_exists(connection: Connection, name: str) -> bool:
    """Return whether the server has a database of this name."""
    return bool(column(connection, "SELECT 1 FROM pg_database WHERE datname = %s", name))


def role_exists(connection: Connection, name: str) -> bool:
    """Return whether the server has a role of this name."""
    return bool(column(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", name))


@contextlib.contextmanager
def readable(task: str) -> Iterator[None]:
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
