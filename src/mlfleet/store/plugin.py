"""The doors MLflow opens: entry points of scheme `mlfleet` for its tracking and registry stores.

MLflow loads this module while it imports itself, so `mlflow.store` may only be imported inside
the functions. Which database a store talks to is not in its URI: `installation.install` sets it
once per process, so no password ever stands in a URI that MLflow could log.
"""

from typing import Any


def tracking_store(store_uri: str, artifact_uri: str | None = None, **_: Any) -> Any:
    """Return the tracking store of this process."""
    from mlfleet.store import installation
    from mlfleet.store.tracking import FleetTrackingStore

    return FleetTrackingStore(
        store_uri, artifact_uri, installation.engine(), installation.sessions()
    )


def registry_store(store_uri: str, **_: Any) -> Any:
    """Return the registry store of this process."""
    from mlfleet.store import installation
    from mlfleet.store.registry import FleetRegistryStore

    return FleetRegistryStore(store_uri, installation.engine(), installation.sessions())


def job_store(store_uri: str) -> Any:
    """Return the job store of this process; MLflow has no entry point for it."""
    from mlfleet.store import installation
    from mlfleet.store.registry import FleetJobStore

    return FleetJobStore(store_uri, installation.engine(), installation.sessions())
