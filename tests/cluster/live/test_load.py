"""Locust's master and workers as pods, on the cell's own address: steady, then a cold storm."""

import os
import re
import time
from collections.abc import Iterator

import pytest

from .conftest import ROOT, kubectl, until, wait_for_zero

IMAGE = os.environ.get("MLFLEET_LOAD_IMAGE", "")
OBJECTS = (
    "job/load-master", "service/load-master", "deployment/load-worker", "pvc/load-runs",
    "serviceaccount/load", "networkpolicy/load", "networkpolicy/load-to-postgres",
)  # fmt: skip
FORGET = """
from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.provision import Provisioner
from mlfleet.database.admin import Admin
from mlfleet.settings import Settings

settings = Settings.from_environ()
catalogue = Catalogue(settings.admin_uri)
provisioner = Provisioner(catalogue, Admin(settings.admin_uri), None)
for tenant in catalogue.tenants():
    if tenant.name.startswith("load-"):
        provisioner.delete(tenant.name, settings.data / "artifacts")
"""

pytestmark = pytest.mark.skipif(
    not IMAGE, reason="MLFLEET_LOAD_IMAGE does not name the image of loadtest/Dockerfile"
)


@pytest.fixture
def locust(fleet: str) -> Iterator[str]:
    """Return the render of the load generator with the image that this cluster has."""
    render = kubectl("kustomize", ROOT / "loadtest" / "kubernetes")
    yield render.replace("image: mlfleet/load", f"image: {IMAGE}")
    kubectl("delete", *OBJECTS, "--ignore-not-found", "--wait=false")
    kubectl("exec", "-i", "deploy/operator", "--", "python", "-", stdin=FORGET)


def run(render: str, *options: str) -> str:
    """Run one Job with other options than the manifest's; return what it printed."""
    names = {option.partition("=")[0] for option in options}
    lines = []
    for line in render.splitlines():
        if line.strip(" -").partition("=")[0] not in {name.strip("-") for name in names}:
            lines.append(line)
        if line.strip() == "- --one-screen":
            lines += [line.replace("--one-screen", option) for option in options]
    kubectl("delete", "job/load-master", "--ignore-not-found", "--wait")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin="\n".join(lines))
    ended = until(
        "the load run is over",
        lambda: kubectl("get", "job/load-master", "-o", "jsonpath={.status.conditions[*].type}"),
        300,
    )
    printed = kubectl("logs", "job/load-master")
    assert "Complete" in ended, printed
    return printed


def test_pods_of_locust_load_a_cell_and_then_storm_it_cold(locust: str) -> None:
    printed = run(
        locust, "--users=60", "--spawn-rate=20", "--run-time=20s", "--tenants=10", "--think=4",
        "--max-errors=0",
    )  # fmt: skip
    assert "0 missing, 0 altered, 0 unexplained" in printed, printed
    wait_for_zero()
    began = time.monotonic()
    printed = run(locust, "--users=200", "--shape=storm", "--tenants=10", "--max-errors=0")
    # One call each, and the first of them found no pod.
    assert re.search(r"^answered .* 200 tries$", printed, re.MULTILINE), printed
    assert re.search(r"^runs/create +(warm .*\n +)?cold ", printed, re.MULTILINE), printed
    assert "0 missing, 0 altered, 0 unexplained" in printed, printed
    assert time.monotonic() - began < 240
