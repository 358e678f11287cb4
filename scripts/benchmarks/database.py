"""Databases beside the tenants' in the fleet's Postgres, and what Postgres itself costs."""

import contextlib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2

from mlfleet.load import processes


class Postgres:
    """The Postgres server under test, as its administrator sees it."""

    def __init__(self, admin_uri: str) -> None:
        self._uri = admin_uri.replace("+psycopg2", "")

    def uri(self, database: str) -> str:
        """Return the SQLAlchemy address of a database, as the administrator."""
        parts = urllib.parse.urlsplit(self._uri)._replace(path=f"/{database}")
        return urllib.parse.urlunsplit(parts).replace("postgresql://", "postgresql+psycopg2://", 1)

    @contextlib.contextmanager
    def cursor(self, database: str = "postgres") -> Iterator[Any]:
        """Connect outside of transactions, because CREATE DATABASE refuses to run in one."""
        connection = psycopg2.connect(self.uri(database).replace("+psycopg2", ""))
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def value(self, sql: str, database: str = "postgres") -> Any:
        """Return the first column of the first row."""
        with self.cursor(database) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0]

    def create(self, database: str, template: str = "template1") -> None:
        """Create a database anew."""
        with self.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{database}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{database}" TEMPLATE "{template}"')

    def connections(self) -> int:
        """Return the number of client connections now, ours not counted."""
        return int(
            self.value(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        )

    def tree(self) -> list[processes.Process]:
        """Return the server's processes, found by the data folder's postmaster.pid."""
        pid_file = Path(str(self.value("SHOW data_directory"))) / "postmaster.pid"
        return processes.tree(int(pid_file.read_text().split()[0]))
