"""Open connections to Postgres as the administrator, with errors a person can act on."""

from typing import Any

import psycopg2
import psycopg2.extensions

from mlfleet.errors import DatabaseAwayError, FleetError

Connection = psycopg2.extensions.connection

OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    "application_name": "mlfleet",
    # A node that is lost must not hold a thread for the two hours of the kernel's defaults.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30000,
}
_LASTING = ("password authentication failed", "does not exist", "no pg_hba.conf entry")


def connect(uri: str, database: str | None = None) -> Connection:
    """Return a connection in autocommit mode.

    Args:
        uri: `postgresql://user:password@host:port/database`; SQLAlchemy's `+psycopg2` is fine too.
        database: another one than the address names.

    Raises:
        FleetError: the address is wrong, or the server refuses this user for good.
        DatabaseAwayError: the server cannot be reached, or has no connection to give, for now.
    """
    options = {**OPTIONS, **({"dbname": database} if database else {})}
    try:
        connection: Connection = psycopg2.connect(libpq_uri(uri), **options)
    except psycopg2.ProgrammingError as exc:
        raise FleetError(f"the database address cannot be read: {_first_line(exc)}") from None
    except psycopg2.OperationalError as exc:
        reason = _first_line(exc)
        lasting = any(sign in reason for sign in _LASTING)
        raise (FleetError if lasting else DatabaseAwayError)(f"Postgres: {reason}") from None
    connection.autocommit = True
    return connection


def libpq_uri(uri: str) -> str:
    """Return the address as libpq's programs read it."""
    return uri.replace("postgresql+psycopg2://", "postgresql://", 1)


def libpq_environment(uri: str, database: str) -> dict[str, str]:
    """Return PG* variables for pg_dump and its kin; arguments could be read by other users."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    names["sslmode"], names["sslrootcert"] = "PGSSLMODE", "PGSSLROOTCERT"
    parts = psycopg2.extensions.parse_dsn(libpq_uri(uri))
    known = {names[key]: str(value) for key, value in parts.items() if key in names}
    return {**known, "PGDATABASE": database, "PGAPPNAME": "mlfleet"}


def _first_line(exc: Exception) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
