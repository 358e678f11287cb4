"""Stock's SQLAlchemy model registry and job store on the instance's one connection.

Replaced in both: `__init__` (no tables are made, no schema is looked at) and the session maker. In
the registry also how tags and aliases are loaded: by the keys of the rows that were found
(`selectinload`) and not by the whole query once more, which SQLAlchemy builds anew each time.
"""

from typing import Any

from mlflow.store.db.db_types import POSTGRES
from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModel
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine
from sqlalchemy.orm import selectinload

from mlfleet.store.pool import Maker


class FleetRegistryStore(SqlAlchemyStore):  # type: ignore[misc]  # MLflow has no types
    """Registered models, their versions, aliases, tags, prompts and webhooks."""

    def __init__(self, store_uri: str, engine: Engine, sessions: Maker) -> None:
        AbstractStore.__init__(self)
        self.db_uri: str = store_uri
        self.db_type: str = POSTGRES
        self.engine = engine
        self.read_engine = None
        self.ManagedSessionMaker = sessions

    @staticmethod
    def _get_eager_registered_model_query_options() -> list[Any]:
        models: Any = SqlRegisteredModel
        return [
            selectinload(models.registered_model_tags),
            selectinload(models.registered_model_aliases),
        ]

    @staticmethod
    def _get_eager_model_version_query_options() -> list[Any]:
        versions: Any = SqlModelVersion
        return [selectinload(versions.model_version_tags)]


class FleetJobStore(SqlAlchemyJobStore):  # type: ignore[misc]  # MLflow has no types
    """Jobs as rows; nothing in an instance runs them."""

    def __init__(self, store_uri: str, engine: Engine, sessions: Maker) -> None:
        self.db_uri: str = store_uri
        self.db_type: str = POSTGRES
        self.engine = engine
        self.ManagedSessionMaker = sessions
