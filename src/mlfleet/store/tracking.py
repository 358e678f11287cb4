"""Stock's SQLAlchemy tracking store on the instance's one connection.

Replaced, and nothing else:

* `__init__`: no look at the tables, no schema verification, no first-start work. Schema and the
  default experiment come with the tenant's database, which is cloned from a prepared template.
* `ManagedSessionMaker`: stock's, with `pool.make_session_maker` around it.
* `get_run`: one statement where stock needs eight, for a run without datasets and models.
* How an experiment's tags are loaded: as in `registry`.
* `create_experiment`: an artifact location outside the tenant's root is refused (400,
  INVALID_PARAMETER_VALUE, stock's answer to other bad locations). Locations that reach rows by
  other ways (tags of traces, sources of model versions) are refused when they are read.
"""

import math
from typing import Any

from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunInputs, RunOutputs, RunTag
from mlflow.store.db.db_types import POSTGRES
from mlflow.store.tracking.abstract_store import AbstractStore
from mlflow.store.tracking.dbmodels.models import SqlExperiment
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.uri import resolve_uri_if_local
from sqlalchemy import Engine
from sqlalchemy.orm import selectinload

from mlfleet.store import artifacts, calls, found_runs
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

    def get_run(self, run_id: str) -> Any:
        """Return a run with all that belongs to it."""
        if calls.is_run_id(run_id):
            with self.ManagedSessionMaker() as session:
                connection = session.connection()
                rows = connection.exec_driver_sql(found_runs.ONE_RUN, {"run": run_id}).all()
            if rows and (run := found_runs.FoundRun(rows[0])).is_plain:
                return _run(run)
        return super().get_run(run_id)

    @staticmethod
    def _get_eager_experiment_query_options() -> list[Any]:
        experiments: Any = SqlExperiment
        return [selectinload(experiments.tags)]


def _run(found: found_runs.FoundRun) -> Any:
    run_id, experiment_id, name, user_id, status, start, end, uri, stage = found.columns
    info = RunInfo(run_id, str(experiment_id), user_id, status, start, end, stage, uri, name)
    metrics = [
        Metric(key, math.nan if is_nan else value, timestamp, step)
        for key, value, timestamp, step, is_nan in found.metrics
    ]
    params = [Param(key, value) for key, value in found.params]
    tags = [RunTag(key, value) for key, value in found.tags]
    return Run(info, RunData(metrics, params, tags), RunInputs([], []), RunOutputs([]))
