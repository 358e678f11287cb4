"""Look at a cluster and say what a fleet misses there, and how to mend it.

Each check is a function of documents that were read, or of the API for a read more; none writes.
"""

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from typing import Literal

from mlfleet.cluster import cells, pods
from mlfleet.cluster.api import (
    CLAIMS,
    CONFIG_MAPS,
    DEFINITIONS,
    EVENTS,
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
    classes = [one["metadata"]["name"] for one in api.list(STORAGE_CLASSES, namespace=None)]
    yield storage_class(api.find(STORAGE_CLASSES, CLASS, None), classes)
    yield from (claim(one, classes, last_event(api, one)) for one in api.list(CLAIMS))
    yield from no_claim(api.find(CLAIMS, CLAIM))
    yield from (secret(name, api.find(SECRETS, name)) for name in (FLEET, POSTGRES))
    yield preparation(api.find(JOBS, "database-prepare"))
    yield from every_cell(api.list(KNATIVE_SERVICES, labels=cells.SELECTOR))
    yield from unwell(api, datetime.datetime.now(datetime.UTC))
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


def storage_class(found: Document | None, classes: Sequence[str]) -> Finding:
    """Check that the one storage class is there."""
    if found is None:
        return Finding(
            "storage",
            "problem",
            f"no StorageClass {CLASS}: an overlay brings it with its storage component; "
            f"{_present(classes)}",
        )
    return Finding("storage", "ok", f"{CLASS} is made by {found['provisioner']}")


def claim(found: Document, classes: Sequence[str], event: str = "") -> Finding:
    """Check that a claim has its volume; `event` is the last thing the cluster said of it."""
    name, phase = found["metadata"]["name"], found["status"]["phase"]
    if phase == "Bound":
        return Finding("claim", "ok", f"{name} is bound")
    wanted = found["spec"].get("storageClassName", "")
    said = f" ({event})" if event else ""
    if wanted not in classes:
        mend = f"there is no StorageClass {wanted!r}; {_present(classes)}"
    else:
        mend = "its driver must be installed and allow " + ", ".join(found["spec"]["accessModes"])
    message = f"{name} of class {wanted!r} is {phase}{said}: {mend}"
    return Finding("claim", "problem", message)


def no_claim(found: Document | None) -> Iterator[Finding]:
    """Check that artifacts have a place at all."""
    if found is None:
        message = f"no claim {CLAIM}: kubectl apply -k knative/overlays/NAME"
        yield Finding("claim", "problem", message)


def last_event(api: Api, found: Document) -> str:
    """Return what the cluster said last of an object that is not bound; empty if nothing."""
    if found["status"]["phase"] == "Bound":
        return ""
    events = api.list(EVENTS, fields=f"involvedObject.uid={found['metadata']['uid']}")
    newest = max(events, key=lambda one: str(one.get("lastTimestamp")), default={})
    return " ".join(str(newest.get("message", "")).split())


def _present(classes: Sequence[str]) -> str:
    return f"this cluster has {', '.join(sorted(classes)) or 'no class at all'}"


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
        "the Job database-prepare has not succeeded yet: its pod below says why; once that is "
        "mended it goes on by itself, or apply the overlay again",
    )


def every_cell(found: Sequence[Document]) -> Iterator[Finding]:
    """Check each cell; a fleet without one serves nobody."""
    yield from map(cell, found)
    if not found:
        yield Finding(
            "cell",
            "problem",
            "there is no cell: Knative refuses one while a flag above is off; "
            "kubectl apply -k knative/overlays/NAME makes it",
        )


def cell(found: Document) -> Finding:
    """Check what Knative says of a cell."""
    name = found["metadata"]["name"]
    if cells.is_ready(found):
        return Finding("cell", "ok", f"{name} is ready at {cells.url(found)}")
    conditions = found.get("status", {}).get("conditions", [])
    reasons = [c.get("message", "") for c in conditions if c["status"] == "False"]
    said = next((reason for reason in reasons if reason), "Knative has not said why yet")
    return Finding("cell", "problem", f"{name} is not ready: {' '.join(said.split())}")


def unwell(api: Api, now: datetime.datetime) -> Iterator[Finding]:
    """Repeat what each pod that is not ready says; a cell asleep has none."""
    for pod in pods.ours(api):
        if pods.is_well(pod):
            continue
        verdict: Verdict = "note" if pods.is_starting(pod, now) else "problem"
        name = pod["metadata"]["name"]
        yield Finding("pod", verdict, f"{name} is not ready: {pods.reason(api, pod)}")


def budget(api: Api) -> Finding:
    """Check that Postgres has connections for all cells."""
    try:
        check_budget(api)
    except FleetError as exc:
        return Finding("budget", "problem", str(exc))
    return Finding("budget", "ok", "Postgres has connections for every cell at its largest")
