"""The operator's work against a real catalogue and real databases.

Only the API server is replaced, by a dictionary that keeps objects; live/ has a real one.
"""

import asyncio
import copy
import datetime
from typing import Any

import pytest

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.provision import Provisioner
from mlfleet.cluster import fleet, reconcile
from mlfleet.cluster.api import (
    CONFIG_MAPS,
    KNATIVE_SERVICES,
    SECRETS,
    TENANTS,
    ClusterError,
)
from mlfleet.cluster.reconcile import Reconciler, UnknownCellError
from mlfleet.database.keys import FleetKey
from mlfleet.errors import BudgetError, FleetError, NoCapacityError

from .shelf import Shelf, secret_of


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "NOTICE_S", 0.0)


def test_a_new_tenant_is_registered_and_its_secret_opens_it(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    status = worker.settle("new-one", "u1", {"quota": {"memory": "512Mi"}})
    row = catalogue.tenant("new-one")
    assert row is not None
    assert row.quota.memory_bytes == 512 * 2**20
    assert status == {
        "id": row.id,
        "state": "registered",
        "cell": "cell-0",
        "url": "http://cell-0.mlfleet.example.test/new-one",
        "tokenSecret": "new-one-mlflow",
        "tokenGeneration": 1,
    }
    assert secret_of(shelf, "new-one")["MLFLOW_TRACKING_URI"] == status["url"]
    metadata = shelf.objects[SECRETS, "new-one-mlflow"]["metadata"]
    assert metadata["ownerReferences"][0]["uid"] == "u1"
    assert token_opens(secret_of(shelf, "new-one"), row)


def token_opens(secret: dict[str, str], row: Any) -> bool:
    from mlfleet.catalogue.tokens import digest

    return digest(secret["MLFLOW_TRACKING_TOKEN"]) in {token.sha256_hex for token in row.tokens}


def test_settling_again_changes_nothing(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    worker.settle("again", "u1", {})
    before, row = copy.deepcopy(shelf.objects), catalogue.tenant("again")
    worker.settle("again", "u1", {})
    assert shelf.objects == before
    assert shelf.patches == [], "nothing is written either"
    assert catalogue.tenant("again") == row


def test_a_token_lost_between_catalogue_and_secret_is_made_anew(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    catalogue.create_tenants(["half-done"])
    worker.settle("half-done", "u1", {})
    row = catalogue.tenant("half-done")
    assert row is not None
    assert len(row.tokens) == 1
    assert token_opens(secret_of(shelf, "half-done"), row)


def test_a_cell_that_is_not_there_leaves_nothing_made(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    before = copy.deepcopy(shelf.objects)
    with pytest.raises(UnknownCellError, match=r"no cell cell-9.*cell add cell-9"):
        worker.settle("nowhere", "u1", {"cell": "cell-9"})
    assert catalogue.tenant("nowhere") is None
    assert shelf.objects == before


def test_another_cell_in_the_spec_moves_the_tenant_and_its_address(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    worker.settle("mover", "u1", {})
    shelf.add_cell("cell-5")
    status = worker.settle("mover", "u1", {"cell": "cell-5"})
    assert status["url"] == "http://cell-5.mlfleet.example.test/mover"
    row = catalogue.tenant("mover")
    assert row is not None
    assert row.cell == "cell-5"
    secret = secret_of(shelf, "mover")
    assert secret["MLFLOW_TRACKING_URI"] == status["url"]
    assert token_opens(secret, row), "the token stays"


def test_a_tenant_moves_only_to_a_cell_that_its_address_leads_to(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    worker.settle("patient", "u1", {})
    before = secret_of(shelf, "patient")
    shelf.add_cell("cell-6", is_routed=False)
    with pytest.raises(NoCapacityError, match="cell-6 is not ready yet"):
        worker.settle("patient", "u1", {"cell": "cell-6"})
    row = catalogue.tenant("patient")
    assert row is not None
    assert row.cell == "cell-0", "its old cell goes on to serve it"
    assert secret_of(shelf, "patient") == before


def test_a_dedicated_tenant_waits_for_its_own_cell(worker: Reconciler, shelf: Shelf) -> None:
    with pytest.raises(NoCapacityError, match="cell-lonely is not ready yet"):
        worker.settle("lonely", "u1", {"tier": "dedicated"})
    cell = shelf.objects[KNATIVE_SERVICES, "cell-lonely"]
    assert cell["metadata"]["ownerReferences"][0]["name"] == "lonely"
    cell["status"] = {"url": "http://cell-lonely.mlfleet.example.test"}
    with pytest.raises(NoCapacityError, match="cell-lonely is not ready yet"):
        worker.settle("lonely", "u1", {"tier": "dedicated"})
    assert (SECRETS, "lonely-mlflow") not in shelf.objects, "an address that answers 404"
    cell["status"]["conditions"] = [{"type": "RoutesReady", "status": "True"}]
    status = worker.settle("lonely", "u1", {"tier": "dedicated"})
    assert status["url"] == "http://cell-lonely.mlfleet.example.test/lonely"


def test_a_dedicated_cell_that_postgres_cannot_hold_is_not_made(
    worker: Reconciler, shelf: Shelf
) -> None:
    shelf.objects[CONFIG_MAPS, reconcile.SETTINGS] = {"data": {"max-connections": "160"}}
    with pytest.raises(BudgetError, match="of max_connections = 160"):
        worker.settle("too-much", "u1", {"tier": "dedicated"})
    assert (KNATIVE_SERVICES, "cell-too-much") not in shelf.objects


def test_a_removed_tenant_leaves_no_database_no_folder_and_no_row(
    worker: Reconciler, catalogue: Catalogue
) -> None:
    worker.admin.prepare()
    worker.settle("goner", "u1", {})
    Provisioner(catalogue, worker.admin, FleetKey(bytes(32))).ensure_database("goner")
    row = catalogue.tenant("goner")
    assert row is not None
    assert worker.admin.exists(row.id)
    (worker.artifacts / str(row.id)).mkdir()
    (worker.artifacts / str(row.id) / "model.bin").write_text("x")
    asyncio.run(worker.remove("goner"))
    assert not worker.admin.exists(row.id)
    assert list(worker.artifacts.iterdir()) == []
    assert catalogue.tenant("goner") is None
    asyncio.run(worker.remove("goner"))  # a repeated call finds nothing to do


def test_a_tenant_that_never_had_a_database_goes_without_a_wait(
    worker: Reconciler, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "NOTICE_S", 600.0)
    worker.settle("unborn", "u1", {})
    asyncio.run(asyncio.wait_for(worker.remove("unborn"), 20))
    assert catalogue.tenant("unborn") is None


def shown(shelf: Shelf, name: str) -> Any:
    return shelf.objects[TENANTS, name]["status"]


def test_the_state_a_first_request_made_is_written_back(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    worker.settle("woken", "u1", {})
    shelf.objects[TENANTS, "woken"] = {"metadata": {"name": "woken"}, "status": {}}
    worker.refresh()
    catalogue.create_tenants(["never-heard-of"])
    catalogue.set_state("woken", "ready")
    worker.refresh()
    assert shown(shelf, "woken") == {"state": "ready"}
    written = list(shelf.patches)
    catalogue.create_token("woken", "another")
    worker.refresh()
    assert shelf.patches == written, "what an object shows already is not written again"


def test_the_last_wake_is_written_and_kept_by_an_operator_that_restarts(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    status = worker.settle("sleeper", "u1", {})
    assert "lastWake" not in status
    shelf.objects[TENANTS, "sleeper"] = {"metadata": {"name": "sleeper"}, "status": {}}
    worker.refresh()
    catalogue.note_wakes({status["id"]: 90.0})
    worker.refresh()
    woken = datetime.datetime.fromisoformat(shown(shelf, "sleeper")["lastWake"])
    age_s = (datetime.datetime.now(datetime.UTC) - woken).total_seconds()
    assert 89 < age_s < 120
    again = Reconciler(shelf, catalogue, worker.admin, worker.artifacts)
    again.view.begin()
    assert again.settle("sleeper", "u1", {})["lastWake"] == shown(shelf, "sleeper")["lastWake"]


def test_what_could_not_be_written_is_written_later(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    worker.settle("unlucky", "u1", {})
    shelf.objects[TENANTS, "unlucky"] = {"metadata": {"name": "unlucky"}, "status": {}}
    worker.refresh()
    catalogue.set_state("unlucky", "ready")
    shelf.takes_patches = False
    with pytest.raises(ClusterError):
        worker.refresh()
    shelf.takes_patches = True
    worker.refresh()
    assert shown(shelf, "unlucky") == {"state": "ready"}


def test_a_larger_token_generation_makes_one_new_token(
    worker: Reconciler, shelf: Shelf, catalogue: Catalogue
) -> None:
    status = worker.settle("rotated", "u1", {})
    first = secret_of(shelf, "rotated")
    status = worker.settle("rotated", "u1", {"tokenGeneration": 2}, status)
    second = secret_of(shelf, "rotated")
    assert status["tokenGeneration"] == 2
    assert second["MLFLOW_TRACKING_URI"] == first["MLFLOW_TRACKING_URI"]
    row = catalogue.tenant("rotated")
    assert token_opens(second, row)
    assert not token_opens(first, row)
    worker.settle("rotated", "u1", {"tokenGeneration": 2}, status)
    assert secret_of(shelf, "rotated") == second


def test_a_secret_of_an_earlier_tenant_or_of_somebody_else_is_not_taken_over(
    worker: Reconciler, shelf: Shelf
) -> None:
    earlier = {"metadata": {"name": "reborn-mlflow", "ownerReferences": [{"uid": "u0"}]}}
    shelf.objects[SECRETS, "reborn-mlflow"] = copy.deepcopy(earlier)
    for _ in range(2):  # as a new tenant, and as one that is registered by now
        with pytest.raises(NoCapacityError, match="is still being removed"):
            worker.settle("reborn", "u1", {})
    assert shelf.objects[SECRETS, "reborn-mlflow"] == earlier
    shelf.objects[SECRETS, "reborn-mlflow"] = {"metadata": {"name": "reborn-mlflow"}}
    with pytest.raises(FleetError, match="delete it, and it is made anew"):
        worker.settle("reborn", "u1", {})
    del shelf.objects[SECRETS, "reborn-mlflow"]
    worker.settle("reborn", "u1", {})
    assert token_opens(secret_of(shelf, "reborn"), worker.catalogue.tenant("reborn"))


def test_tenants_for_a_cell_that_is_not_there_are_not_asked_for(shelf: Shelf) -> None:
    with pytest.raises(UnknownCellError, match="there is no cell cell-9"):
        fleet.create_tenants(shelf, ["asked-a", "asked-b"], {"cell": "cell-9"})
    assert not [name for kind, name in shelf.objects if kind == TENANTS]
