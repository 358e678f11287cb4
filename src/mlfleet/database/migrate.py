"""Run MLflow's own migrations on one database: `python -m mlfleet.database.migrate DATABASE`.

The administrator's address comes on stdin. The one module outside store and cell that imports
mlflow, and only ever as a process of its own. An empty database gets everything a stock server
with `--serve-artifacts` would make at its first start, the Default experiment included.
"""

import sys

import psycopg2
import sqlalchemy


def main(database: str, uri: str) -> None:
    """Create or upgrade the schema."""
    from mlflow.store.db.utils import _upgrade_db
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    address = sqlalchemy.make_url(uri.replace("postgresql://", "postgresql+psycopg2://", 1))
    address = address.set(database=database)
    engine = sqlalchemy.create_engine(address)
    if sqlalchemy.inspect(engine).has_table("alembic_version"):
        _upgrade_db(engine)
    engine.dispose()
    SqlAlchemyStore(address.render_as_string(hide_password=False), "mlflow-artifacts:/")


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.stdin.read().strip())
    except (psycopg2.Error, sqlalchemy.exc.SQLAlchemyError) as error:
        sys.exit(str(error).splitlines()[0])
