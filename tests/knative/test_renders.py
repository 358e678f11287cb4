"""The manifests: what is rendered, in what the overlays differ, and that numbers agree."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from mlfleet.catalogue.names import RESERVED
from mlfleet.cluster import cells
from mlfleet.cluster.api import Document
from mlfleet.errors import BudgetError
from mlfleet.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "knative" / "overlays").iterdir())
KUBECTL = Path(sys.executable).with_name("kubectl")

MAY_DIFFER = (
    # What is there at all.
    r"ConfigMap/postgres-configuration-\w+",
    r"(Service|StatefulSet)/postgres",
    r"NetworkPolicy/monitoring",
    # How the one storage class is made, and who answers at the door.
    r"StorageClass/mlfleet-shared\.(provisioner|parameters|mountOptions|reclaimPolicy).*",
    r"Service/cell-0\.metadata\.annotations\.networking\.knative\.dev/ingress-class",
    r"Service/cell-0\.spec\.template\.metadata\.annotations\.prometheus\.io/\w+",
    # An overlay's settings, and where they go.
    r"ConfigMap/mlfleet-settings\.data\.[a-z-]+",
    r"Service/cell-0\..*\.env\.MLFLEET_(DOMAIN|MAX_AWAKE|TRUSTED_PROXIES)\.value",
    r"Deployment/front\..*\.env\.MLFLEET_(PUBLIC_HOSTS|TRUSTED_PROXIES)\.value",
    r"Ingress/front\.spec\.rules\.\d\.host",
    r"Service/cell-0\..*\.annotations\.autoscaling\.knative\.dev/max-scale",
    r"Job/database-prepare\..*\.env\.MAX_CONNECTIONS\.value",
    r"Service/cell-0\..*\.resources\.limits\.memory",
    r"PersistentVolumeClaim/mlfleet-artifacts\.spec\.resources\.requests\.storage",
    r".*\.image",
)
"""All in which one overlay may differ from another."""

Objects = dict[str, dict[str, Any]]


def rendered(overlay: str) -> str:
    folder = ROOT / "knative" / "overlays" / overlay
    run = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "deprecated" not in run.stderr
    return run.stdout


def objects(overlay: str) -> Objects:
    documents = yaml.safe_load_all(golden(overlay))
    return {f"{one['kind']}/{one['metadata']['name']}": one for one in documents}


def golden(overlay: str) -> str:
    return (ROOT / "tests" / "golden" / f"{overlay}.yaml").read_text()


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Return each scalar with its path; an item of a list goes by its name where it has one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            label = inner.get("name", index) if isinstance(inner, dict) else index
            yield from leaves(inner, f"{path}.{label}")
    else:
        yield path, value


def differences(one: Objects, other: Objects) -> set[str]:
    found = set(one) ^ set(other)
    for name in set(one) & set(other):
        left, right = dict(leaves(one[name], name)), dict(leaves(other[name], name))
        found |= {p for p in set(left) | set(right) if left.get(p) != right.get(p)}
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_golden_render_is_current(overlay: str) -> None:
    assert rendered(overlay) == golden(overlay), "run scripts/render and look at the difference"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_differ_only_where_they_may(overlay: str) -> None:
    allowed = re.compile("|".join(f"(?:{pattern})" for pattern in MAY_DIFFER))
    found = differences(objects("pi"), objects(overlay))
    assert [path for path in sorted(found) if not allowed.fullmatch(path)] == []


def test_pgbouncer_is_added_and_only_the_cells_tenants_go_there() -> None:
    folder = ROOT / "tests" / "knative" / "pooled"
    run = subprocess.run([KUBECTL, "kustomize", folder], capture_output=True, text=True)
    assert run.stdout == golden("pooled"), "run scripts/render and look at the difference"
    found = differences(objects("test"), objects("pooled"))
    address = r"Service/cell-0\..*\.env\.MLFLEET_POOLER_ADDRESS\.(name|value)"
    added = (
        r"(Service|Deployment|NetworkPolicy|ConfigMap)/(cells-to-)?pgbouncer(-configuration-\w+)?"
    )
    assert [p for p in sorted(found) if not re.fullmatch(f"{address}|{added}", p)] == []
    assert environment("pooled")["MLFLEET_POOLER_ADDRESS"] == "pgbouncer:6432"


def test_the_test_overlay_differs_only_in_images_and_storage_class() -> None:
    found = differences(objects("pi"), objects("test"))
    assert [p for p in found if not re.fullmatch(r".*\.image|StorageClass/.*", p)] == []


def container(overlay: str) -> dict[str, Any]:
    one = objects(overlay)["Service/cell-0"]["spec"]["template"]["spec"]["containers"][0]
    assert isinstance(one, dict)
    return one


def environment(overlay: str) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container(overlay)["env"]}


@pytest.mark.parametrize("overlay", [*OVERLAYS, "pooled"])
def test_a_cell_understands_its_environment(overlay: str) -> None:
    only_in_manifests = {"MLFLEET_DOMAIN"}
    found = environment(overlay)
    assert set(found) - only_in_manifests <= set(known_variables())
    Settings.from_environ(found)


def known_variables() -> list[str]:
    return [f"MLFLEET_{name.upper()}" for name in Settings.__dataclass_fields__]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_times_fit_into_each_other(overlay: str) -> None:
    template = objects(overlay)["Service/cell-0"]["spec"]["template"]
    settings = Settings.from_environ(environment(overlay))
    window_s = float(template["metadata"]["annotations"]["autoscaling.knative.dev/window"][:-1])
    assert settings.idle_s < window_s, "tenants sleep before their cell does"
    assert settings.drain_s < template["spec"]["timeoutSeconds"], "that is the pod's grace period"
    assert settings.hold_s < template["spec"]["responseStartTimeoutSeconds"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_connections_of_all_replicas_fit_into_postgres(overlay: str) -> None:
    found = objects(overlay)
    limit = int(found["ConfigMap/mlfleet-settings"]["data"]["max-connections"])
    cells.check_connections([found["Service/cell-0"]], limit, Settings.catalogue_connections)
    with pytest.raises(BudgetError, match="= 209 of max_connections"):
        cells.check_connections([cell_with(awake=55, replicas=2)], 200, 10)


def cell_with(awake: int, replicas: int) -> Document:
    return cells.derived(
        objects("pi")["Service/cell-0"], "cell-1", max_awake=awake, max_replicas=replicas
    )


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "eks"])
def test_our_postgres_allows_what_the_settings_say(overlay: str) -> None:
    found = objects(overlay)
    name = next(name for name in found if name.startswith("ConfigMap/postgres-configuration"))
    conf = found[name]["data"]["postgresql.conf"]
    limit = found["ConfigMap/mlfleet-settings"]["data"]["max-connections"]
    assert f"\nmax_connections = {limit}\n" in conf


@pytest.mark.parametrize("overlay", [*OVERLAYS, "pooled"])
def test_no_secret_and_no_floating_image_is_applied(overlay: str) -> None:
    found = objects(overlay)
    assert not [name for name in found if name.startswith("Secret/")]
    images = [
        value
        for name in found
        for path, value in leaves(found[name], "")
        if path.endswith(".image")
    ]
    assert images
    assert all(re.search(r":(?!latest)[\w.-]+$", image) for image in images), images


@pytest.mark.parametrize("overlay", [*OVERLAYS, "pooled"])
def test_every_pod_is_as_confined_as_it_can_be(overlay: str) -> None:
    for name, one in objects(overlay).items():
        template = one.get("spec", {}).get("template")
        if not isinstance(template, dict):
            continue
        pod = template["spec"]
        for member in [*pod["containers"], *pod.get("initContainers", [])]:
            own = {**pod.get("securityContext", {}), **member["securityContext"]}
            assert own["runAsNonRoot"] is True, name
            assert own["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert own["readOnlyRootFilesystem"] is True, name
            assert own["allowPrivilegeEscalation"] is False, name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert member["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in member["resources"]["limits"], name


def requested_bytes(template: Document) -> int:
    """Return what a pod asks for: its containers together, or its largest first step."""

    def memory(container: Document) -> int:
        return int(parse_quantity(container["resources"]["requests"]["memory"]))

    spec = template["spec"]
    return max(
        sum(map(memory, spec["containers"])), *map(memory, spec.get("initContainers", [])), 0
    )


@pytest.mark.parametrize("overlay", ["pi", "local"])
def test_the_whole_plane_at_rest_asks_for_at_most_a_gibibyte(overlay: str) -> None:
    found = objects(overlay)
    asleep = {n: one for n, one in found.items() if one["apiVersion"] != "serving.knative.dev/v1"}
    parts = {
        name: requested_bytes(one["spec"]["template"]) * one["spec"].get("replicas", 1)
        for name, one in asleep.items()
        if isinstance(one.get("spec", {}).get("template"), dict)
    }
    assert set(parts) == {
        "Deployment/front", "Deployment/operator", "StatefulSet/postgres", "Job/database-prepare"
    }  # fmt: skip
    assert sum(parts.values()) <= 2**30, parts
    cell = requested_bytes(found["Service/cell-0"]["spec"]["template"])
    stays = sum(size for name, size in parts.items() if not name.startswith("Job/"))
    assert stays + cell <= 2**30, "with one replica of the cell awake, too"


def test_names_the_gateway_keeps_are_refused_by_the_schema_too() -> None:
    schema = objects("pi")["CustomResourceDefinition/tenants.mlfleet.dev"]
    root = schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    rule = next(r["rule"] for r in root["x-kubernetes-validations"] if " in [" in r["rule"])
    assert set(re.findall(r"'([^']+)'", rule)) == set(RESERVED)
