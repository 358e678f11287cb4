"""The catalogue's schema, step by step, and how to bring a database to the last step."""

from pathlib import Path

import sqlalchemy

from mlfleet.errors import FleetError

_LOCK = 0x6D6C666C65657402


def upgrade(engine: sqlalchemy.Engine, revision: str = "head") -> None:
    """Bring the catalogue's schema to the newest revision; safe when two processes do it at once.

    Raises:
        FleetError: a newer mlfleet made this catalogue.
    """
    # Not with the module: a cell imports the catalogue at each start and never migrates it.
    import alembic.command
    import alembic.config
    import alembic.util

    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with engine.begin() as connection:
        # Held until the commit: the second one finds everything done.
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        config.attributes["connection"] = connection
        try:
            alembic.command.upgrade(config, revision)
        except alembic.util.CommandError as exc:
            raise FleetError(
                f"the catalogue was made by a newer mlfleet ({exc}): install that version"
            ) from exc
