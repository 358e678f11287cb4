"""Stock's SQLAlchemy model registry and job store on the instance's one connection.

Replaced in both: `__init__` (no tables are made, no schema is looked at) and the session maker.
"""

from mlflow.store.db.db_types import POSTGRES
from mlflow.store.jobs.sqlalchemy_store import SqlAlchemyJobStore
from mlflow.store.model_registry.abstract_store import AbstractStore
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
from sqlalchemy import Engine

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


class FleetJobStore(SqlAlchemyJobStore):  # type: ignore[misc]  # MLflow has no types
    """Jobs as rows; nothing in an instance runs them."""

    def __init__(self, store_uri: str, engine: Engine, sessions: Maker) -> None:
        self.db_uri: str = store_uri
        self.db_type: str = POSTGRES
        self.engine = engine
        self.ManagedSessionMaker = sessions
