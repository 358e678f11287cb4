"""What an operator asks of a fleet on Kubernetes, by way of its objects: no database is touched.

Whoever may write Tenants may do this; the operator (a program, in the cluster) does the rest.
"""

import base64
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

from mlfleet.catalogue.names import tenant_name
from mlfleet.cluster import cells, tenants
from mlfleet.cluster.api import (
    KNATIVE_SERVICES,
    SECRETS,
    TENANTS,
    AbsentError,
    Api,
    ConflictError,
    Document,
)
from mlfleet.cluster.reconcile import UnknownCellError, check_budget
from mlfleet.errors import FleetError, UnknownTenantError

WAIT_S = 120.0
POLL_S = 0.3


@dataclasses.dataclass(frozen=True)
class Created:
    """A tenant that was asked for, and what its users need."""

    name: str
    url: str
    token: str | None = dataclasses.field(repr=False)
    created: bool


def create_tenants(api: Api, names: Sequence[str], spec: Document) -> list[Created]:
    """Ask for tenants and wait until each has an address and a token.

    One that exists is left as it is, and its token is not shown again.

    Raises:
        InvalidNameError, UnknownCellError: a name is none, or its cell is not there; then nothing
            was asked for.
        FleetError: the operator refused one, or did not answer in time.
    """
    wanted = [tenant_name(name) for name in dict.fromkeys(names)]
    if "cell" in spec and api.find(KNATIVE_SERVICES, cells.cell_name(spec["cell"])) is None:
        raise UnknownCellError(spec["cell"])
    fresh = {name: _ask(api, name, spec) for name in wanted}
    deadline = time.monotonic() + WAIT_S
    return [_outcome(api, name, fresh[name], deadline) for name in wanted]


def _ask(api: Api, name: str, spec: Document) -> bool:
    try:
        api.create(TENANTS, {"kind": "Tenant", "metadata": {"name": name}, "spec": spec})
    except ConflictError:
        return False
    return True


def _outcome(api: Api, name: str, created: bool, deadline: float) -> Created:
    url = settled(api, name, deadline)["url"]
    token = _token(api, name) if created else None
    return Created(name, url, token, created)


def settled(api: Api, name: str, deadline: float) -> Document:
    """Return a tenant's status once it speaks of the object's present generation.

    Raises:
        FleetError: the operator says why not, or nothing within the time.
    """
    while True:
        found = tenant(api, name)
        status: Document = found.get("status", {})
        ready = next((c for c in status.get("conditions", []) if c["type"] == tenants.READY), None)
        if ready and ready.get("observedGeneration") == found["metadata"]["generation"]:
            if ready["status"] == "True":
                return status
            if ready["reason"] not in tenants.PASSING:
                raise FleetError(f"tenant {name}: {ready['message']}")
        if time.monotonic() > deadline:
            said = f": {ready['message']}" if ready else ""
            raise FleetError(
                f"tenant {name} was not ready within {WAIT_S:.0f} s{said}; `kubectl logs -n "
                f"{api.namespace} deployment/operator` and `mlfleet --cluster doctor` say more"
            )
        time.sleep(POLL_S)


def _token(api: Api, name: str) -> str:
    data = api.get(SECRETS, tenants.token_secret(name))["data"]
    return base64.b64decode(data[tenants.TOKEN]).decode()


def tenant(api: Api, name: str) -> Document:
    """Return a Tenant object.

    Raises:
        UnknownTenantError: there is none.
    """
    try:
        return api.get(TENANTS, tenant_name(name))
    except AbsentError as exc:
        raise UnknownTenantError(
            f"no tenant {name} in namespace {api.namespace}: `mlfleet --cluster tenant list`"
        ) from exc


def delete_tenant(api: Api, name: str, wait_s: float = WAIT_S) -> None:
    """Delete a tenant with all it owns, and wait until nothing of it is left."""
    uid = tenant(api, name)["metadata"]["uid"]
    api.delete(TENANTS, name)
    deadline = time.monotonic() + wait_s
    while (left := api.find(TENANTS, name)) and left["metadata"]["uid"] == uid:
        if time.monotonic() > deadline:
            raise FleetError(
                f"tenant {name} is still being deleted: is the operator up? "
                f"`kubectl logs -n {api.namespace} deployment/operator` says"
            )
        time.sleep(POLL_S)


def move_tenant(api: Api, name: str, cell: str) -> str:
    """Let another cell serve a tenant; return its new address.

    Raises:
        UnknownTenantError, FleetError: no such tenant or cell; then nothing was changed.
    """
    tenant(api, name)
    if api.find(KNATIVE_SERVICES, cells.cell_name(cell)) is None:
        raise UnknownCellError(cell)
    api.patch(TENANTS, name, {"spec": {"cell": cell, "tier": "shared"}})
    return str(settled(api, name, time.monotonic() + WAIT_S)["url"])


def rotate_token(api: Api, name: str) -> str:
    """Give a tenant another first token; return it. The old one ends within seconds."""
    generation = tenants.token_generation(tenant(api, name)["spec"]) + 1
    api.patch(TENANTS, name, {"spec": {"tokenGeneration": generation}})
    settled(api, name, time.monotonic() + WAIT_S)
    return _token(api, name)


def add_cell(api: Api, name: str, **size: Any) -> Document:
    """Make a cell like cell-0, of another size if wanted.

    Raises:
        ConflictError: it is there already.
        BudgetError: Postgres has not enough connections for it; then nothing was made.
    """
    first = api.find(KNATIVE_SERVICES, cells.FIRST)
    if first is None:
        raise FleetError(
            f"no cell {cells.FIRST} in namespace {api.namespace} to take as a pattern: "
            "`kubectl apply -k` an overlay first"
        )
    service = cells.derived(first, name, **size)
    check_budget(api, service)
    return api.create(KNATIVE_SERVICES, service)


def list_cells(api: Api) -> list[Document]:
    """Return the Knative Services that are cells."""
    return api.list(KNATIVE_SERVICES, labels=cells.SELECTOR)


def remove_cell(api: Api, name: str) -> None:
    """Remove a cell that serves nobody.

    Raises:
        FleetError: tenants still name it.
    """
    using = [
        one["metadata"]["name"]
        for one in api.list(TENANTS)
        if tenants.cell(one["metadata"]["name"], one["spec"]) == name
    ]
    if using:
        some = ", ".join(using[:3]) + (", …" if len(using) > 3 else "")
        raise FleetError(
            f"cell {name} still serves {len(using)} tenants ({some}): move them first with "
            "`mlfleet --cluster tenant move NAME --cell CELL`"
        )
    api.delete(KNATIVE_SERVICES, name)
