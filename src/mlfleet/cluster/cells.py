"""Cells as Knative Services: what a new one looks like, and what they may hold open together.

Pure. A new cell is a copy of an existing one under another name: whatever an overlay says about
images, sizes and storage holds for every cell, and is said once.
"""

import copy
import enum
import re
from collections.abc import Sequence

from mlfleet.cluster.api import Document
from mlfleet.database.budget import Budget
from mlfleet.errors import BudgetError, FleetError, InvalidNameError

FIRST = "cell-0"
CONTAINER = "cell"
SELECTOR = "app.kubernetes.io/name=cell"
MAX_SCALE = "autoscaling.knative.dev/max-scale"
TIER = "mlfleet.dev/tier"
OWNED_BY_SERVER = ("serving.knative.dev/", "kubectl.kubernetes.io/")
RESERVED_CONNECTIONS = 3
FRONT_CONNECTIONS = 8
"""Four of each pod of the front; there are two of them while one is replaced."""
ROLLOUT_REPLICAS = 1
"""A new revision's first replica runs beside all of the old one's."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def cell_name(text: str) -> str:
    """Return the text as the name of a cell.

    Raises:
        InvalidNameError: Kubernetes would refuse a Service of that name.
    """
    if not _NAME.fullmatch(text):
        raise InvalidNameError(
            f"cell name {text[:80]!r}: use 1 to 63 of a-z, 0-9 and -, a letter first and no - last"
        )
    return text


def cell_of_dedicated(tenant: str) -> str:
    """Return the name of a dedicated tenant's own cell."""
    return cell_name(f"cell-{tenant}")


def derived(
    first: Document,
    name: str,
    *,
    tier: str = "shared",
    max_awake: int | None = None,
    max_replicas: int | None = None,
    memory: str | None = None,
) -> Document:
    """Return the Service of a new cell: that of an existing one with another name and size."""
    template = copy.deepcopy(first["spec"]["template"])
    metadata = template["metadata"]
    metadata.pop("name", None)
    metadata["annotations"] = _ours(metadata.get("annotations", {}))
    container = _container(template)
    _set(container, "MLFLEET_CELL", cell_name(name))
    if max_awake is not None:
        _set(container, "MLFLEET_MAX_AWAKE", str(max_awake))
    if max_replicas is not None:
        metadata["annotations"][MAX_SCALE] = str(max_replicas)
    if memory is not None:
        container["resources"]["limits"]["memory"] = memory
    own = first["metadata"]
    return {
        "kind": "Service",
        "metadata": {
            "name": name,
            "labels": {**own.get("labels", {}), TIER: tier},
            "annotations": _ours(own.get("annotations", {})),
        },
        "spec": {"template": template},
    }


def connections(cell: Document, catalogue_connections: int) -> int:
    """Return how many connections to Postgres a cell may hold open at the worst moment."""
    per_replica = int(setting(cell, "MLFLEET_MAX_AWAKE")) + catalogue_connections
    return (max_replicas(cell) + ROLLOUT_REPLICAS) * per_replica


def check_connections(cells: Sequence[Document], limit: int, catalogue_connections: int) -> None:
    """Return if all cells together fit into Postgres.

    Raises:
        BudgetError: they do not; says the sum, cell by cell.
    """
    parts = {c["metadata"]["name"]: connections(c, catalogue_connections) for c in cells}
    operator = Budget.operator
    needed = sum(parts.values()) + operator + FRONT_CONNECTIONS + RESERVED_CONNECTIONS
    if needed > limit:
        arithmetic = " + ".join(f"{name} {count}" for name, count in parts.items())
        raise BudgetError(
            f"too many connections: {arithmetic} + {operator} operator + {FRONT_CONNECTIONS} front "
            f"+ {RESERVED_CONNECTIONS} reserved = {needed} of max_connections = {limit}; give the "
            "cells fewer awake tenants (--max-awake) or replicas, or raise max_connections to "
            f"{needed}"
        )


def max_replicas(cell: Document) -> int:
    """Return how far a cell may scale.

    Raises:
        FleetError: without a limit the number of connections has none either.
    """
    annotations = cell["spec"]["template"]["metadata"].get("annotations", {})
    try:
        limit = int(annotations[MAX_SCALE])
    except (KeyError, ValueError):
        limit = 0
    if limit < 1:
        name = cell["metadata"]["name"]
        raise FleetError(
            f"cell {name} has no {MAX_SCALE}: its connections to Postgres have no limit"
        )
    return limit


def setting(cell: Document, variable: str) -> str:
    """Return the value of a cell's variable; empty if it has none."""
    variables = _container(cell["spec"]["template"])["env"]
    return next((v.get("value", "") for v in variables if v["name"] == variable), "")


def is_ready(cell: Document) -> bool:
    """Return whether Knative calls the cell ready (at zero replicas it is, too)."""
    return _is_true(cell, "Ready")


class Stage(enum.Enum):
    """How far a cell has come."""

    ABSENT = "absent"
    COMING = "coming"
    ROUTED = "routed"
    """Its address leads to it; so it does while a new revision fails."""


def stage(cell: Document | None) -> Stage:
    """Return how far a cell has come, given its Service, if there is one."""
    if cell is None:
        return Stage.ABSENT
    return Stage.ROUTED if url(cell) and _is_true(cell, "RoutesReady") else Stage.COMING


def _is_true(cell: Document, condition: str) -> bool:
    conditions = cell.get("status", {}).get("conditions", [])
    return any(c["type"] == condition and c["status"] == "True" for c in conditions)


def url(cell: Document) -> str | None:
    """Return the address of a cell, once Knative has given it one."""
    found = cell.get("status", {}).get("url")
    return None if found is None else str(found)


def _container(template: Document) -> Document:
    found: Document = next(c for c in template["spec"]["containers"] if c["name"] == CONTAINER)
    return found


def _set(container: Document, variable: str, value: str) -> None:
    entry = next((v for v in container["env"] if v["name"] == variable), None)
    if entry is None:
        container["env"].append({"name": variable, "value": value})
    else:
        entry["value"] = value


def _ours(annotations: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in annotations.items() if not k.startswith(OWNED_BY_SERVER)}
