"""Make the catalogue, the cells and the Secrets agree with what a Tenant object says.

Level-triggered: each call looks at how things are and does what is missing, so it may be repeated
after any failure, and again after a restart. The catalogue stays the one truth that gateways read;
the object is a wish and a view.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.models import Tenant
from mlfleet.catalogue.provision import remove_folder
from mlfleet.cluster import cells, tenants
from mlfleet.cluster.api import (
    CONFIG_MAPS,
    KNATIVE_SERVICES,
    SECRETS,
    TENANTS,
    AbsentError,
    Api,
    ConflictError,
    Document,
)
from mlfleet.cluster.view import View
from mlfleet.database.admin import Admin, database_name
from mlfleet.errors import FleetError, NoCapacityError
from mlfleet.settings import Settings

log = logging.getLogger(__name__)

ACTOR = "operator"
SETTINGS = "mlfleet-settings"
FIRST_TOKEN = "default"
NOTICE_S = 2 * Settings.catalogue_poll_s
"""Until every gateway has seen a change of the catalogue."""
DRAIN_S = 25.0
CELL_KEPT_S = 1.0
"""How long a ready cell is taken for granted; thousands of tenants ask for the same one."""


class UnknownCellError(FleetError):
    """A tenant names a cell that is not there."""

    seen = cells.Stage.ABSENT

    def __init__(self, cell: str) -> None:
        self.cell = cell
        super().__init__(
            f"there is no cell {cell}: `mlfleet --cluster cell list` shows all, "
            f"`mlfleet --cluster cell add {cell}` makes it"
        )


class CellNotReadyError(NoCapacityError):
    """A tenant's cell is there, and its address does not lead to it yet."""

    seen = cells.Stage.COMING

    def __init__(self, cell: str) -> None:
        self.cell = cell
        super().__init__(f"cell {cell} is not ready yet")


class Reconciler:
    """Brings one tenant at a time to where its object wants it; may be shared by threads."""

    def __init__(self, api: Api, catalogue: Catalogue, admin: Admin, artifacts: Path) -> None:
        self.api, self.catalogue, self.admin = api, catalogue, admin
        self.artifacts = artifacts
        self.view = View(catalogue)
        self._cells: dict[str, tuple[float, Document]] = {}

    def settle(
        self, name: str, uid: str, spec: Document, before: Mapping[str, Any] | None = None
    ) -> Document:
        """Do what is missing for a tenant; return its status.

        Args:
            before: its status up to now.

        Raises:
            UnknownCellError, CellNotReadyError: it has to wait for its cell; nothing was made.
            NoCapacityError: something takes its time; try again.
            FleetError: it cannot be, and says why.
        """
        cell = self._cell(name, uid, spec)
        # An address that the ingress does not know yet answers 404, which is final to a client,
        # and the old cell of a tenant that moves would pass requests on into the void.
        if cells.stage(cell) is not cells.Stage.ROUTED:
            raise CellNotReadyError(tenants.cell(name, spec))
        row, token = self._registered(name, spec)
        url = f"{cells.url(cell)}/{name}"
        generation = tenants.token_generation(spec)
        is_due = generation > tenants.token_generation(before or {})
        self._hand_out(row, url, token, uid, is_due=is_due)
        return {
            **tenants.status(row, url),
            "tokenGeneration": generation,
            **self.view.settled(name, row.state),
        }

    async def remove(self, name: str) -> None:
        """Remove a tenant with its database, role, files, rows; running requests may finish.

        No thread is held while it waits: thousands may go at once.
        """
        row = await asyncio.to_thread(self.catalogue.tenant, name)
        if row is None:
            return
        await asyncio.to_thread(self.catalogue.set_state, name, "deleting")
        if await asyncio.to_thread(self.admin.exists, row.id):
            await self._until_unused(row)
        await asyncio.to_thread(self._erase, row)
        self.view.forget(name)
        log.info("tenant_removed", extra={"tenant": name, "id": row.id})

    async def _until_unused(self, row: Tenant) -> None:
        """Wait until gateways know of the deletion and the tenant's instances have drained."""
        await asyncio.sleep(NOTICE_S)
        deadline = time.monotonic() + DRAIN_S
        while time.monotonic() < deadline:
            if not await asyncio.to_thread(self._sessions, row.id):
                return
            await asyncio.sleep(0.5)

    def _erase(self, row: Tenant) -> None:
        self.admin.drop(row.id)
        if self.artifacts.is_dir():
            remove_folder(self.artifacts / str(row.id))
        self.catalogue.forget(row.id, actor=ACTOR)

    def refresh(self) -> None:
        """Write what has changed in the catalogue into the status of the tenants it is about."""
        for name, change in self.view.changes().items():
            with contextlib.suppress(AbsentError):  # a tenant without an object
                self.api.patch(TENANTS, name, {"status": change}, "status")
            self.view.was_written(name, change)

    def _cell(self, name: str, uid: str, spec: Document) -> Document:
        wanted = tenants.cell(name, spec)
        since, kept = self._cells.get(wanted, (-CELL_KEPT_S, {}))
        if time.monotonic() - since < CELL_KEPT_S:
            return kept
        found = self.api.find(KNATIVE_SERVICES, wanted)
        if found is not None:
            if cells.is_ready(found):
                self._cells[wanted] = (time.monotonic(), found)
            return found
        if tenants.tier(spec) == "dedicated":
            return self._make_cell(wanted, tenants.owner(name, uid))
        raise UnknownCellError(wanted)

    def _make_cell(self, name: str, owner: Document) -> Document:
        first = self.api.get(KNATIVE_SERVICES, cells.FIRST)
        service = cells.derived(first, name, tier="dedicated", max_awake=1, max_replicas=1)
        service["metadata"]["ownerReferences"] = [owner]
        check_budget(self.api, service)
        return self.api.create(KNATIVE_SERVICES, service)

    def _registered(self, name: str, spec: Document) -> tuple[Tenant, str | None]:
        """Return the tenant's row, made or changed as its object wants, and a token if new."""
        row = self.catalogue.tenant(name)
        token = None
        cell, quota = tenants.cell(name, spec), tenants.quota(spec)
        if row is None:
            [created] = self.catalogue.create_tenants(
                [name], tier=tenants.tier(spec), cell=cell, quota=quota, actor=ACTOR
            )
            token = created.token
            row = self.catalogue.tenant(name)
        if row is None or row.state == "deleting":
            raise NoCapacityError(f"an earlier tenant {name} is still being deleted")
        if row.quota != quota:
            row = self.catalogue.set_quota(name, quota, actor=ACTOR)
        if (row.cell, row.tier) != (cell, tenants.tier(spec)):
            row = self.catalogue.move(name, cell, tier=tenants.tier(spec), actor=ACTOR)
        return row, token

    def _hand_out(
        self, row: Tenant, url: str, token: str | None, uid: str, *, is_due: bool
    ) -> None:
        """See that the tenant's Secret is there, with its address and a token that opens it.

        Args:
            token: its first one, if the tenant is new.
            is_due: its token shall be another one. One that was lost is made anew, too.
        """
        name = tenants.token_secret(row.name)
        found = None if token else self.api.find(SECRETS, name)
        if found is not None:
            self._check_owner(found, uid)
        if found is not None and not is_due:
            if tenants.address(found) != url:
                self.api.patch(SECRETS, name, {"stringData": {tenants.ADDRESS: url}})
            return
        document = tenants.secret(
            row.name, url, token or self._other_token(row.name), tenants.owner(row.name, uid)
        )
        if found is not None:
            self.api.patch(SECRETS, name, {"stringData": document["stringData"]})
            return
        try:
            self.api.create(SECRETS, document)
        except ConflictError:
            self._check_owner(self.api.get(SECRETS, name), uid)
            raise

    def _other_token(self, name: str) -> str:
        made = self.catalogue.create_token(name, FIRST_TOKEN, actor=ACTOR)
        return made or self.catalogue.rotate_token(name, FIRST_TOKEN, actor=ACTOR)

    def _check_owner(self, secret: Document, uid: str) -> None:
        """Refuse a Secret of somebody else: its token is not this tenant's.

        Raises:
            NoCapacityError: of an earlier tenant of this name; the cluster is removing it.
            FleetError: of no tenant; whoever made it has to decide.
        """
        name = secret["metadata"]["name"]
        owners = [one["uid"] for one in secret["metadata"].get("ownerReferences", [])]
        if uid in owners:
            return
        if owners:
            raise NoCapacityError(f"Secret {name} of an earlier tenant is still being removed")
        raise FleetError(
            f"Secret {name} is there and not this tenant's: delete it, and it is made anew"
        )

    def _sessions(self, tenant_id: int) -> int:
        with self.admin.session() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s",
                (database_name(tenant_id),),
            )
            row = cursor.fetchone()
        return int(row[0]) if row else 0


def check_budget(api: Api, *new: Document) -> None:
    """Return if Postgres has connections for all cells and the new ones.

    Raises:
        BudgetError: it has not; says the sum, cell by cell.
    """
    limit = int(api.get(CONFIG_MAPS, SETTINGS)["data"]["max-connections"])
    names = {document["metadata"]["name"] for document in new}
    present = api.list(KNATIVE_SERVICES, labels=cells.SELECTOR)
    others = [cell for cell in present if cell["metadata"]["name"] not in names]
    cells.check_connections([*others, *new], limit, Settings.catalogue_connections)
