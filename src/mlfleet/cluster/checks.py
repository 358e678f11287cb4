"""Look at a cluster and say what a fleet misses there, and how to mend it.

Each check is a function of documents that were read, or of the API for a read more; none writes.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal

from mlfleet.cluster import cells
from mlfleet.cluster.api import (
    CLAIMS,
    CONFIG_MAPS,
    DEFINITIONS,
    JOBS,
    KNATIVE_SERVICES,
    SECRETS,
    STORAGE_CLASSES,
    Api,
    ClusterError,
    Document,
)
from mlfleet.cluster.reconcile import check_budget
from mlfleet.cluster.secrets import FLEET, POSTGRES
from mlfleet.errors import FleetError

Verdict = Literal["ok", "note", "problem"]

SERVING = "knative-serving"
FLAGS = {
    "kubernetes.podspec-persistent-volume-claim": "artifacts lie on a claim",
    "kubernetes.podspec-persistent-volume-write": "artifacts are written",
    "kubernetes.podspec-securitycontext": "a group of its own may read the fleet key",
}
"""Feature flags a cell needs, and for what."""
CLASS = "mlfleet-shared"
CLAIM = "mlfleet-artifacts"
TENANT_DEFINITION = "tenants.mlfleet.dev"
KNATIVE_DEFINITION = "services.serving.knative.dev"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one look showed."""

    check: str
    verdict: Verdict
    message: str


def examine(api: Api) -> Iterator[Finding]:
    """Look at everything; stop early where the rest would only repeat the cause."""
    try:
        yield Finding("cluster", "ok", f"Kubernetes {api.version()}")
    except ClusterError as exc:
        yield Finding("cluster", "problem", str(exc))
        return
    if api.find(DEFINITIONS, KNATIVE_DEFINITION, None) is None:
        yield Finding(
            "knative",
            "problem",
            "Knative Serving is not installed: docs/kubernetes.md says which version and how",
        )
        return
    features = api.find(CONFIG_MAPS, "config-features", SERVING)
    yield from flags(features or {})
    yield definition(api.find(DEFINITIONS, TENANT_DEFINITION, None))
    yield storage_class(api.find(STORAGE_CLASSES, CLASS, None))
    yield claim(api.find(CLAIMS, CLAIM))
    yield from (secret(name, api.find(SECRETS, name)) for name in (FLEET, POSTGRES))
    yield preparation(api.find(JOBS, "database-prepare"))
    yield from (cell(one) for one in api.list(KNATIVE_SERVICES, labels=cells.SELECTOR))
    yield budget(api)


def flags(features: Document) -> Iterator[Finding]:
    """Check Knative's feature flags in its `config-features`."""
    data = features.get("data", {})
    for flag, need in FLAGS.items():
        if str(data.get(flag, "disabled")).lower() == "enabled":
            yield Finding("flag", "ok", f"{flag} is on")
        else:
            change = f'{{"data":{{"{flag}":"enabled"}}}}'
            yield Finding(
                "flag",
                "problem",
                f"{flag} is off, but {need}: kubectl patch configmap config-features "
                f"-n {SERVING} --type merge -p '{change}'",
            )


def definition(found: Document | None) -> Finding:
    """Check that Tenants are known here."""
    if found is None:
        message = f"{TENANT_DEFINITION} is not defined: kubectl apply -k knative/overlays/NAME"
        return Finding("tenants", "problem", message)
    return Finding("tenants", "ok", "Tenant objects are defined")


def storage_class(found: Document | None) -> Finding:
    """Check that the one storage class is there."""
    if found is None:
        message = f"no StorageClass {CLASS}: an overlay brings it with its storage component"
        return Finding("storage", "problem", message)
    return Finding("storage", "ok", f"{CLASS} is made by {found['provisioner']}")


def claim(found: Document | None) -> Finding:
    """Check that artifacts have a place."""
    phase = "missing" if found is None else found["status"]["phase"]
    if phase != "Bound":
        return Finding(
            "artifacts",
            "problem",
            f"claim {CLAIM} is {phase}: kubectl describe pvc {CLAIM} says why; the storage "
            "driver must be installed and allow ReadWriteMany",
        )
    return Finding("artifacts", "ok", f"claim {CLAIM} is bound")


def secret(name: str, found: Document | None) -> Finding:
    """Check a Secret by its presence; its contents are not looked at."""
    if found is None:
        message = f"no Secret {name}: the Job database-prepare makes it; see its logs"
        return Finding("secrets", "problem", message)
    return Finding("secrets", "ok", f"{name} is there")


def preparation(found: Document | None) -> Finding:
    """Check the Job that makes catalogue and template; once done it removes itself."""
    status: Document = {} if found is None else found.get("status", {})
    if found is None or status.get("succeeded"):
        return Finding("database", "ok", "no preparation is outstanding")
    return Finding(
        "database",
        "problem",
        f"the Job database-prepare has not succeeded ({status.get('failed', 0)} tries failed): "
        "kubectl logs job/database-prepare says why",
    )


def cell(found: Document) -> Finding:
    """Check what Knative says of a cell."""
    name = found["metadata"]["name"]
    if cells.is_ready(found):
        return Finding("cell", "ok", f"{name} is ready at {cells.url(found)}")
    conditions = found.get("status", {}).get("conditions", [])
    reasons = [c.get("message", "") for c in conditions if c["status"] == "False"]
    said = next((reason for reason in reasons if reason), "Knative has not said why yet")
    return Finding("cell", "problem", f"{name} is not ready: {said}")


def budget(api: Api) -> Finding:
    """Check that Postgres has connections for all cells."""
    try:
        check_budget(api)
    except FleetError as exc:
        return Finding("budget", "problem", str(exc))
    return Finding("budget", "ok", "Postgres has connections for every cell at its largest")
