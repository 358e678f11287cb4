"""What the operator writes into a Tenant: how it went, and nothing that is there already."""

import io
import json
import logging
from typing import Any

import kopf

from mlfleet.cluster import operator
from mlfleet.cluster.reconcile import Reconciler
from mlfleet.log import JsonFormatter

from .shelf import Shelf


def settled(worker: Reconciler, name: str, spec: Any, status: Any) -> dict[str, Any]:
    """Return the change of the status that one call of the handler asks for."""
    metadata = {"name": name, "uid": "u1", "generation": 3}
    body = kopf.Body({"metadata": metadata, "spec": spec, "status": status})
    patch = kopf.Patch()
    try:
        operator.settle(
            name=name, uid="u1", spec=body.spec, status=body.status, meta=body.meta,
            patch=patch, memo=kopf.Memo(reconciler=worker),
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
    worker: Reconciler,
    shelf: Shelf,
) -> None:
    status = settled(worker, "homeless", {"cell": "cell-7"}, {})
    assert status.pop("failed")
    [condition] = status["conditions"]
    assert (condition["status"], condition["reason"]) == ("False", "UnknownCell")
    assert "there is no cell cell-7" in condition["message"]
    again = settled(worker, "homeless", {"cell": "cell-7"}, status)
    assert again == {"failed": True}, "said once, not with each try"
    shelf.add_cell("cell-7")
    status |= settled(worker, "homeless", {"cell": "cell-7"}, status)
    assert status["conditions"][0]["status"] == "True"


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
