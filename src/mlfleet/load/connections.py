"""How many connections a Postgres has, by whose they are."""

import contextlib
from typing import Any

import psycopg2

from mlfleet.database.connect import Connection, connect
from mlfleet.errors import FleetError

# Tenants' roles are named after their databases, mlfleet_t<id>: everybody else keeps the fleet.
_COUNT = """
SELECT count(*),
       count(*) FILTER (WHERE usename ~ '^mlfleet_t[0-9]'),
       current_setting('max_connections')::int
FROM pg_stat_activity
WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Connections:
    """Counts over one connection of its own, which is not counted; opened anew after a loss."""

    def __init__(self, uri: str | None) -> None:
        """Name the server; None: not known yet."""
        self.uri = uri
        self._connection: Connection | None = None

    def count(self) -> dict[str, Any]:
        """Return the counts, nothing while Postgres is away."""
        if self.uri is None:
            return {}
        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self.uri)
            with self._connection.cursor() as cursor:
                cursor.execute(_COUNT)
                every, tenants, limit = cursor.fetchone() or (0, 0, 0)
        except (FleetError, psycopg2.Error):
            self._close()
            return {}
        return {
            "connections": every,
            "connections_by": {"tenants": tenants, "fleet": every - tenants},
            "max_connections": limit,
        }

    def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg2.Error):
                self._connection.close()
        self._connection = None
