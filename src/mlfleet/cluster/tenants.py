"""Tenants as objects: what their documents mean, and what the operator writes back.

Pure. The schema of the custom resource has already refused what it can; what comes here is well
formed, but a quantity is still text.
"""

import base64
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, cast

from kubernetes.utils.quantity import parse_quantity

from mlfleet.catalogue.models import Quota, Tenant, Tier
from mlfleet.cluster import cells
from mlfleet.cluster.api import TENANTS, Document
from mlfleet.errors import FleetError

READY = "Ready"
PASSING = ("NoCapacity", "CellNotReady")
"""Reasons for not being ready that pass by themselves."""
ADDRESS, TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"


def tier(spec: Document) -> Tier:
    """Return the tier a tenant asks for."""
    return cast(Tier, spec.get("tier", "shared"))


def cell(name: str, spec: Document) -> str:
    """Return the name of the cell that shall serve a tenant."""
    if tier(spec) == "dedicated":
        return cells.cell_of_dedicated(name)
    return str(spec.get("cell") or cells.FIRST)


def quota(spec: Document) -> Quota:
    """Return a tenant's limits; what is left out has the catalogue's default."""
    wanted = spec.get("quota", {})
    default = Quota()
    return Quota(
        concurrency=int(wanted.get("concurrency", default.concurrency)),
        memory_bytes=_bytes(wanted.get("memory"), default.memory_bytes),
        artifact_bytes=_bytes(wanted.get("artifacts"), default.artifact_bytes),
    )


def _bytes(text: str | None, default: int) -> int:
    if text is None:
        return default
    try:
        return int(parse_quantity(text))
    except ValueError as exc:
        raise FleetError(f"{text!r} is not a quantity: write it like 512Mi or 20Gi") from exc


def token_secret(name: str) -> str:
    """Return the name of the Secret with a tenant's address and first token."""
    return f"{name}-mlflow"


def secret(name: str, url: str, token: str, owner: Document) -> Document:
    """Return the Secret a tenant's users read; with `envFrom` a stock client needs no more."""
    return {
        "kind": "Secret",
        "metadata": {
            "name": token_secret(name),
            "labels": {"app.kubernetes.io/part-of": "mlfleet", "mlfleet.dev/tenant": name},
            "ownerReferences": [owner],
        },
        "stringData": {ADDRESS: url, TOKEN: token},
    }


def address(secret: Document) -> str:
    """Return the address that a Secret of the API server holds."""
    return base64.b64decode(secret.get("data", {}).get(ADDRESS, "")).decode()


def token_generation(values: Mapping[str, Any]) -> int:
    """Return which token a spec asks for, or which one a status says was handed out."""
    return int(values.get("tokenGeneration", 1))


def owner(name: str, uid: str) -> Document:
    """Return the reference by which what a Tenant owns goes away with it."""
    return {
        "apiVersion": TENANTS.api_version,
        "kind": "Tenant",
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def status(row: Tenant, url: str) -> Document:
    """Return what a Tenant's status says of a tenant of the catalogue."""
    return {
        "id": row.id,
        "state": row.state,
        "cell": row.cell,
        "url": url,
        "tokenSecret": token_secret(row.name),
    }


def condition(
    old: Sequence[Document],
    *,
    is_true: bool,
    reason: str,
    message: str,
    generation: int,
    now: datetime.datetime,
) -> list[Document]:
    """Return the conditions with `Ready` set; its time changes only when its status does."""
    value = str(is_true)
    before = next((c for c in old if c["type"] == READY), None)
    since = before["lastTransitionTime"] if before and before["status"] == value else None
    return [
        {
            "type": READY,
            "status": value,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": since or now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    ]
