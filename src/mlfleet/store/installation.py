"""Point this process's MLflow at one tenant: database, artifact root, secret; or at none again.

`install` is called in the zygote with a throw-away database (to warm MLflow up), undone by
`reset` before the fork, and called again in each instance. Engine and session maker belong to the
process and outlive both, so an instance inherits compiled statements and asks Postgres nothing
at its start. No tenant's secret is put in a URI: MLflow only sees `mlfleet://store`.
"""

import dataclasses
import functools
import os
from typing import Any

import sqlalchemy

from mlfleet.database.access import DatabaseAccess
from mlfleet.database.keys import webhook_key
from mlfleet.store import pool
from mlfleet.store.connection import StoreConnection

STORE_URI = "mlfleet://store"
DEFAULT_ARTIFACT_ROOT = "mlflow-artifacts:/"
"""Clients go through the instance, as stock's `--serve-artifacts` has it."""

_connection = StoreConnection()


@dataclasses.dataclass(frozen=True)
class StoreConfig:
    """What the store needs to serve one tenant."""

    database: DatabaseAccess
    artifact_root: str
    """An absolute folder, or an s3:// URI that ends in the tenant's own prefix."""
    artifact_bytes: int
    """Most bytes under a local artifact root; 0 means no limit."""
    kek_passphrase: str = dataclasses.field(repr=False)
    idle_s: float = 5.0
    wait_s: float = 20.0
    s3_environment: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)


def connection() -> StoreConnection:
    """Return the one connection of this process."""
    return _connection


@functools.cache
def engine() -> sqlalchemy.Engine:
    """Return the one engine of this process."""
    return pool.make_engine(_connection)


@functools.cache
def sessions() -> pool.Maker:
    """Return the one session maker of this process."""
    return pool.make_session_maker(engine())


def install(config: StoreConfig) -> StoreConnection:
    """Serve this tenant from now on; nothing is connected before the first statement."""
    from mlfleet.store import artifacts

    _connection.configure(config.database, idle_s=config.idle_s, wait_s=config.wait_s)
    os.environ.update(_environment(config))
    _set_webhook_key(config.kek_passphrase)
    artifacts.install(config.artifact_root, config.artifact_bytes)
    _set_stores()
    return _connection


def reset() -> None:
    """Forget the tenant: connection closed, no thread left, MLflow's stores unset."""
    from mlflow.server import handlers

    _connection.close()
    handlers._tracking_store = handlers._model_registry_store = None
    handlers._job_store = handlers._artifact_repo = None


def _environment(config: StoreConfig) -> dict[str, str]:
    from mlflow.server import constants

    root = config.artifact_root
    return {
        constants.BACKEND_STORE_URI_ENV_VAR: STORE_URI,
        constants.REGISTRY_STORE_URI_ENV_VAR: STORE_URI,
        constants.ARTIFACT_ROOT_ENV_VAR: DEFAULT_ARTIFACT_ROOT,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: root,
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
        constants.CRYPTO_KEK_PASSPHRASE_ENV_VAR: config.kek_passphrase,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **config.s3_environment,
    }


def _set_webhook_key(kek_passphrase: str) -> None:
    """Encrypt webhooks' secrets with the tenant's own key.

    MLflow makes its cipher once, when it is imported: in the zygote, for all tenants, and with a
    random key that a restart would lose.
    """
    from cryptography.fernet import Fernet
    from mlflow.store.model_registry.dbmodels.models import SqlWebhook

    column: Any = SqlWebhook.__table__.c.secret
    # In place: SQLAlchemy keeps copies of the type, which share this cipher.
    vars(column.type.cipher).update(vars(Fernet(webhook_key(kek_passphrase))))


def _set_stores() -> None:
    """Give MLflow its stores; what it would build itself from the URIs is the same, but lazily."""
    from mlflow.server import handlers
    from mlflow.tracking._model_registry import utils as registry_uri
    from mlflow.tracking._tracking_service import utils as tracking_uri

    from mlfleet.store import plugin

    stores: Any = handlers
    stores._tracking_store = plugin.tracking_store(STORE_URI, DEFAULT_ARTIFACT_ROOT)
    stores._model_registry_store = plugin.registry_store(STORE_URI)
    stores._job_store = plugin.job_store(STORE_URI)
    stores._artifact_repo = None
    tracking_uri.set_tracking_uri(STORE_URI)
    registry_uri.set_registry_uri(STORE_URI)
