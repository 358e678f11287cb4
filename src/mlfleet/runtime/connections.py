"""What the settings of a fleet on one machine ask of Postgres' connections."""

import contextlib

from mlfleet.database.budget import Budget
from mlfleet.database.connect import connect
from mlfleet.settings import Settings

EMBEDDED_RESERVED = 3
"""Postgres' own default of superuser_reserved_connections."""


def embedded(settings: Settings) -> Budget:
    """Return the budget of the embedded Postgres, whose limit we choose."""
    plan = _budget(settings, settings.max_connections or 0, EMBEDDED_RESERVED)
    limit = settings.max_connections or plan.needed
    return _budget(settings, limit, EMBEDDED_RESERVED)


def of_server(uri: str, settings: Settings) -> Budget:
    """Return the budget against the limit that a running server states."""
    with contextlib.closing(connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(setting::int) FILTER (WHERE name = 'max_connections'),"
            " sum(setting::int) FILTER (WHERE name <> 'max_connections')"
            " FROM pg_settings WHERE name IN"
            " ('max_connections', 'superuser_reserved_connections', 'reserved_connections')"
        )
        limit, reserved = cursor.fetchone() or (0, 0)
    return _budget(settings, int(limit), int(reserved))


def _budget(settings: Settings, limit: int, reserved: int) -> Budget:
    return Budget(
        max_connections=limit,
        reserved=reserved,
        awake=settings.max_awake,
        catalogue_connections=settings.catalogue_connections,
    )
