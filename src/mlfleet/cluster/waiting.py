"""Tenants that wait for a cell: they are looked at again when it has come further.

kopf keeps a place for each object that it will try again, and has only so many. A tenant whose cell
is not there may wait for days, and thousands may; so kopf takes them as handled, and here they cost
an entry each, and one list of the cells now and then for all.
"""

import contextlib
import datetime
from collections.abc import Iterator

from mlfleet.cluster import cells
from mlfleet.cluster.api import KNATIVE_SERVICES, TENANTS, AbsentError, Api
from mlfleet.cluster.cells import Stage

TOUCHED = "mlfleet.dev/cell-changed"
"""Annotation whose change lets kopf look at a Tenant again."""


class Waiting:
    """Which tenants wait, for which cell, and how far that had come; may be shared by threads."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._of: dict[str, tuple[str, Stage]] = {}

    def add(self, tenant: str, cell: str, seen: Stage) -> None:
        """Let a tenant wait until its cell is no longer as it was seen."""
        self._of[tenant] = (cell, seen)

    def remove(self, tenant: str) -> None:
        """Let a tenant wait no longer."""
        self._of.pop(tenant, None)

    def touch(self) -> None:
        """Touch the objects of tenants whose cells have come further, or are gone."""
        for tenant, waits in self._due():
            # First: a look at the touched object may let it wait anew.
            self.remove(tenant)
            try:
                self._touch(tenant)
            except BaseException:
                self._of.setdefault(tenant, waits)
                raise

    def _due(self) -> Iterator[tuple[str, tuple[str, Stage]]]:
        if not self._of:
            return
        found = {one["metadata"]["name"]: one for one in self._api.list(KNATIVE_SERVICES)}
        for tenant, (cell, seen) in list(self._of.items()):
            if cells.stage(found.get(cell)) is not seen:
                yield tenant, (cell, seen)

    def _touch(self, tenant: str) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat()
        change = {"metadata": {"annotations": {TOUCHED: now}}}
        with contextlib.suppress(AbsentError):
            self._api.patch(TENANTS, tenant, change)
