"""Cells and Tenants as documents: what is derived, what is refused."""

import copy
import datetime
import functools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.catalogue.models import Quota
from mlfleet.cluster import cells, checks, tenants
from mlfleet.errors import BudgetError, FleetError, InvalidNameError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "pi.yaml"
NOW = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@functools.cache
def rendered() -> Any:
    documents = yaml.safe_load_all(GOLDEN.read_text())
    return next(d for d in documents if d["apiVersion"].startswith("serving.knative"))


def first() -> Any:
    """Return cell-0 as the API server would: with marks of its own."""
    found = copy.deepcopy(rendered())
    found["metadata"]["annotations"]["serving.knative.dev/creator"] = "admin"
    found["metadata"]["uid"] = "1"
    return found


def test_a_new_cell_is_the_first_one_under_another_name() -> None:
    original = first()
    before = copy.deepcopy(original)
    made = cells.derived(original, "cell-1", max_awake=7, max_replicas=3, memory="3Gi")
    assert original == before, "the pattern is not changed"
    assert made["metadata"]["name"] == "cell-1"
    assert "uid" not in made["metadata"]
    assert "serving.knative.dev/creator" not in made["metadata"]["annotations"]
    assert made["metadata"]["annotations"] == {
        "networking.knative.dev/ingress-class": "traefik.ingress.networking.knative.dev"
    }
    assert cells.setting(made, "MLFLEET_CELL") == "cell-1"
    assert cells.setting(made, "MLFLEET_MAX_AWAKE") == "7"
    assert cells.max_replicas(made) == 3
    [old], [new] = (d["spec"]["template"]["spec"]["containers"] for d in (original, made))
    assert new["resources"]["limits"]["memory"] == "3Gi"
    assert {k: v for k, v in new.items() if k not in ("env", "resources")} == {
        k: v for k, v in old.items() if k not in ("env", "resources")
    }


@pytest.mark.parametrize("name", ["", "Cell", "9cell", "cell-", "a" * 64, "a.b", "../x", "a b"])
def test_a_name_that_kubernetes_would_refuse_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(InvalidNameError, match="a letter first"):
        cells.cell_name(name)


@given(st.integers(1, 300), st.integers(1, 20), st.integers(1, 30))
def test_cells_fit_exactly_up_to_the_limit(awake: int, replicas: int, catalogue: int) -> None:
    cell = cells.derived(first(), "cell-1", max_awake=awake, max_replicas=replicas)
    needed = (replicas + 1) * (awake + catalogue) + 3 + 8 + 3
    cells.check_connections([cell], needed, catalogue)
    with pytest.raises(BudgetError, match=f"raise max_connections to {needed}"):
        cells.check_connections([cell], needed - 1, catalogue)


def test_a_cell_without_a_limit_of_replicas_has_no_budget() -> None:
    cell = first()
    del cell["spec"]["template"]["metadata"]["annotations"][cells.MAX_SCALE]
    with pytest.raises(FleetError, match="max-scale"):
        cells.check_connections([cell], 10_000, 10)


def test_a_dedicated_tenant_gets_a_cell_of_its_own_name() -> None:
    assert tenants.cell("team-a", {"tier": "dedicated"}) == "cell-team-a"
    assert tenants.cell("team-a", {"tier": "shared"}) == "cell-0"
    assert tenants.cell("team-a", {"cell": "cell-7"}) == "cell-7"


def test_quantities_become_bytes_and_the_rest_keeps_its_default() -> None:
    quota = tenants.quota({"quota": {"memory": "512Mi", "artifacts": "2G"}})
    assert quota == Quota(Quota().concurrency, 512 * 2**20, 2 * 10**9)
    assert tenants.quota({}) == Quota()
    with pytest.raises(FleetError, match="'much' is not a quantity"):
        tenants.quota({"quota": {"memory": "much"}})


def condition(old: list[Any], *, is_true: bool, now: datetime.datetime = NOW) -> Any:
    return tenants.condition(old, is_true=is_true, reason="R", message="m", generation=2, now=now)


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    later = NOW + datetime.timedelta(hours=1)
    one = condition([], is_true=False)
    assert one[0]["lastTransitionTime"] == "2030-01-02T03:04:05Z"
    assert (
        condition(one, is_true=False, now=later)[0]["lastTransitionTime"]
        == (one[0]["lastTransitionTime"])
    )
    assert condition(one, is_true=True, now=later)[0]["lastTransitionTime"] == (
        "2030-01-02T04:04:05Z"
    )


def test_doctor_says_how_to_switch_a_flag_on() -> None:
    on = dict.fromkeys(checks.FLAGS, "enabled")
    assert {f.verdict for f in checks.flags({"data": on})} == {"ok"}
    flag = next(iter(on))
    found = checks.flags({"data": {**on, flag: "Disabled"}})
    [problem] = [finding for finding in found if finding.verdict == "problem"]
    assert problem.message.endswith(
        "kubectl patch configmap config-features -n knative-serving --type merge "
        f"""-p '{{"data":{{"{flag}":"enabled"}}}}'"""
    )


def test_doctor_repeats_what_knative_says_of_a_cell() -> None:
    cell = first()
    cell["status"] = {
        "conditions": [
            {"type": "Ready", "status": "False", "message": "Unable to fetch image"},
        ]
    }
    assert checks.cell(cell).verdict == "problem"
    assert "Unable to fetch image" in checks.cell(cell).message
    cell["status"] = {"url": "http://c", "conditions": [{"type": "Ready", "status": "True"}]}
    assert checks.cell(cell) == checks.Finding("cell", "ok", "cell-0 is ready at http://c")
