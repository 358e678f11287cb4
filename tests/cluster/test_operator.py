"""What the operator writes into a Tenant: how it went, and nothing that is there already."""

import io
import json
import logging
from typing import Any

import kopf
import pytest

from mlfleet.cluster import operator
from mlfleet.cluster.api import KNATIVE_SERVICES, SECRETS, TENANTS, ClusterError
from mlfleet.cluster.cells import Stage
from mlfleet.cluster.reconcile import Reconciler
from mlfleet.cluster.waiting import Waiting
from mlfleet.log import JsonFormatter

from .shelf import Shelf


def settled(
    worker: Reconciler, name: str, spec: Any, status: Any, waiting: Waiting | None = None
) -> dict[str, Any]:
    """Return the change of the status that one call of the handler asks for."""
    metadata = {"name": name, "uid": "u1", "generation": 3}
    body = kopf.Body({"metadata": metadata, "spec": spec, "status": status})
    patch = kopf.Patch()
    memo = kopf.Memo(reconciler=worker, waiting=waiting or Waiting(worker.api))
    try:
        operator.settle(
            name=name, uid="u1", spec=body.spec, status=body.status, meta=body.meta,
            patch=patch, memo=memo,
        )  # fmt: skip
    except kopf.TemporaryError:
        patch.status["failed"] = True
    return dict(patch.status)


def test_a_restart_writes_nothing_where_all_is_as_it_should_be(
    worker: Reconciler,
) -> None:
    status = settled(worker, "restarted", {}, {})
    assert status["conditions"][0]["status"] == "True"
    assert status["observedGeneration"] == 3
    assert settled(worker, "restarted", {}, status) == {}
    other = {**status, "observedGeneration": 2}
    assert settled(worker, "restarted", {}, other) == {"observedGeneration": 3}


def test_what_cannot_be_is_said_in_the_condition_and_tried_again(
    worker: Reconciler, shelf: Shelf
) -> None:
    shelf.objects[SECRETS, "unlucky-mlflow"] = {"metadata": {"name": "unlucky-mlflow"}}
    worker.catalogue.create_tenants(["unlucky"])
    status = settled(worker, "unlucky", {}, {})
    assert status.pop("failed")
    [condition] = status["conditions"]
    assert condition["status"] == "False"
    assert "delete it, and it is made anew" in condition["message"]
    again = settled(worker, "unlucky", {}, status)
    assert again == {"failed": True}, "said once, not with each try"
    del shelf.objects[SECRETS, "unlucky-mlflow"]
    status |= settled(worker, "unlucky", {}, status)
    assert status["conditions"][0]["status"] == "True"


def test_a_tenant_waits_for_its_cell_without_keeping_a_place_and_is_touched_when_it_comes(
    worker: Reconciler, shelf: Shelf
) -> None:
    waiting = Waiting(shelf)
    shelf.objects[TENANTS, "homeless"] = {"metadata": {}}
    status: dict[str, Any] = {}

    def look() -> tuple[str, str]:
        new = settled(worker, "homeless", {"cell": "cell-7"}, status, waiting)
        assert "failed" not in new, "kopf has nothing to try again"
        status.update(new)
        [condition] = status["conditions"]
        return condition["status"], condition["reason"]

    assert look() == ("False", "UnknownCell")
    assert "there is no cell cell-7" in status["conditions"][0]["message"]
    waiting.touch()
    assert shelf.patches == [], "nothing has changed"
    shelf.add_cell("cell-7", is_routed=False)
    waiting.touch()
    assert shelf.patches == [(TENANTS, "homeless")]
    waiting.touch()
    assert len(shelf.patches) == 1, "touched once; now it is kopf's to look"
    assert look() == ("False", "CellNotReady")
    touched = shelf.objects[TENANTS, "homeless"]["metadata"]["annotations"]
    shelf.add_cell("cell-7")
    waiting.touch()
    assert shelf.objects[TENANTS, "homeless"]["metadata"]["annotations"] != touched
    assert look() == ("True", "Registered")
    del shelf.objects[KNATIVE_SERVICES, "cell-7"]
    shelf.patches.clear()
    waiting.touch()
    assert shelf.patches == [], "it waits no longer"


def test_a_waiting_tenant_that_could_not_be_touched_is_touched_later(shelf: Shelf) -> None:
    waiting = Waiting(shelf)
    shelf.objects[TENANTS, "homeless"] = {"metadata": {}}
    waiting.add("homeless", "cell-0", Stage.ABSENT)
    waiting.add("deleted", "cell-0", Stage.ABSENT)
    shelf.takes_patches = False
    with pytest.raises(ClusterError):
        waiting.touch()
    shelf.takes_patches = True
    waiting.touch()
    assert shelf.patches == [(TENANTS, "homeless")]


def test_a_line_of_the_log_names_the_tenant_and_leaves_out_all_settings() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(operator.plainly)
    record = logging.makeLogRecord(
        {"msg": "Handler failed", "settings": object(), "k8s_skip": False,
         "k8s_ref": {"kind": "Tenant", "name": "team-a"}}
    )  # fmt: skip
    handler.handle(record)
    line = json.loads(stream.getvalue())
    assert set(line) == {"time", "level", "event", "tenant"}
    assert line["tenant"] == "team-a"
