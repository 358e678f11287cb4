"""Stock's SQLAlchemy tracking store on the instance's one connection.

Replaced, and nothing else:

* `__init__`: no look at the tables, no schema verification, no first-start work. Schema and the
  default experiment come with the tenant's database, which is cloned from a prepared template.
* `ManagedSessionMaker`: stock's, with `pool.make_session_maker` around it.
* `create_experiment`: an artifact location outside the tenant's root is refused (400,
  INVALID_PARAMETER_VALUE, stock's answer to other bad locations). Locations that reach rows by
  other ways (tags of traces, sources of model versions) are refused when they are read.
"""

from typing import Any

from mlflow.store.db.db_types import POSTGRES
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.uri import resolve_uri_if_local
from sqlalchemy import Engine

from mlfleet.store import artifacts
from mlfleet.store.pool import Maker


class FleetTrackingStore(SqlAlchemyStore):  # type: ignore[misc]  # MLflow has no types
    """Runs, experiments, traces and what else the tracking API keeps in rows."""

    def __init__(
        self, store_uri: str, artifact_root: str | None, engine: Engine, sessions: Maker
    ) -> None:
        AbstractStore.__init__(self)
        self.db_uri: str = store_uri
        self.db_type: str = POSTGRES
        self.artifact_root_uri: Any = resolve_uri_if_local(artifact_root)
        self.engine = engine
        self.read_engine = None
        self.ManagedSessionMaker = sessions

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Any = None
    ) -> Any:
        """Create an experiment whose artifacts lie inside the tenant's root."""
        if artifact_location:
            artifacts.check_location(artifact_location)
        return super().create_experiment(name, artifact_location, tags)
