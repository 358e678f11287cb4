"""The catalogue's database: make it, reach it, and say in a sentence why it cannot be reached."""

import contextlib
from collections.abc import Iterator

import psycopg2.errors
import sqlalchemy

from mlfleet.catalogue import migrations
from mlfleet.database.connect import OPTIONS, connect, libpq_uri
from mlfleet.errors import DatabaseAwayError, FleetError

DATABASE = "mlfleet_catalogue"
POOL_CONNECTIONS = 4
"""Most connections one process holds to the catalogue; part of the connection budget."""
_CREATE_LOCK = 0x6D6C666C65657403


class CatalogueDatabase:
    """The database `mlfleet_catalogue` on a server, whatever database the address names."""

    def __init__(self, admin_uri: str) -> None:
        self._admin_uri = admin_uri
        address = sqlalchemy.make_url(
            libpq_uri(admin_uri).replace("postgresql://", "postgresql+psycopg2://", 1)
        )
        self._engine = sqlalchemy.create_engine(
            address.set(database=DATABASE),
            pool_size=POOL_CONNECTIONS,
            max_overflow=0,
            pool_pre_ping=True,
            pool_recycle=1800,
            connect_args=OPTIONS,
        )

    def prepare(self) -> None:
        """Create the catalogue's database if it is missing and bring its schema up to date."""
        admin = connect(self._admin_uri)
        try:
            with admin.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(%s)", (_CREATE_LOCK,))
                cursor.execute("SELECT FROM pg_database WHERE datname = %s", (DATABASE,))
                if not cursor.rowcount:
                    cursor.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8'")
                cursor.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
        finally:
            admin.close()
        with _readable():
            migrations.upgrade(self._engine)

    def close(self) -> None:
        """Close all connections; the next call opens new ones."""
        self._engine.dispose()

    @contextlib.contextmanager
    def begin(self) -> Iterator[sqlalchemy.Connection]:
        """Lend a connection for one transaction."""
        with _readable(), self._engine.begin() as connection:
            yield connection


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except sqlalchemy.exc.TimeoutError as exc:
        raise DatabaseAwayError("the catalogue is busy: all its connections are in use") from exc
    except sqlalchemy.exc.ProgrammingError as exc:
        if not isinstance(exc.orig, psycopg2.errors.UndefinedTable):
            raise
        raise FleetError("the catalogue has no tables: run `mlfleet database prepare`") from exc
    except (sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError) as exc:
        reason = str(exc.orig).strip().splitlines()[0] if exc.orig else "connection lost"
        if "does not exist" in reason:
            raise FleetError(f"{reason}: run `mlfleet database prepare`") from exc
        raise DatabaseAwayError(f"the catalogue cannot be reached: {reason}") from exc
