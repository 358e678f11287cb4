"""Memory of pods as the kubelet counts it, and as their manifests ask for it."""

import datetime
import json
import re
from typing import Any

from cluster_bench.kube import Cluster, Document

FRESH_S = 60.0
"""Longest wait for the kubelet to look again; it looks every 10 s."""
_UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 1e3, "M": 1e6, "G": 1e9, "m": 1e-3}


def quantity_bytes(text: str) -> int:
    """Return the bytes that a Kubernetes quantity of memory stands for."""
    found = re.fullmatch(r"([0-9.]+)(Ki|Mi|Gi|k|M|G|m|)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a quantity of memory")
    return int(float(found[1]) * _UNITS[found[2]])


def requested_bytes(pod: Document) -> int:
    """Return what a pod's containers ask for, queue-proxy included."""
    requests = (c.get("resources", {}).get("requests", {}) for c in pod["spec"]["containers"])
    return sum(quantity_bytes(one.get("memory", "0")) for one in requests)


def used_bytes(cluster: Cluster, pods: list[Document]) -> int:
    """Return the working set of these pods, all containers, measured after this call began.

    The working set is what `kubectl top` shows and what evictions go by: everything but file pages
    that the kernel may drop at once.
    """
    called = datetime.datetime.now(datetime.UTC)
    names = {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods}
    if not names:
        return 0
    found = cluster.until(
        "the kubelet measures the memory", lambda: _measured(cluster, names, called), FRESH_S
    )
    return sum(found)


def _measured(
    cluster: Cluster, names: set[tuple[str, str]], after: datetime.datetime
) -> list[int] | None:
    """Return one number per container, or nothing while one is older than `after` or missing."""
    found: list[int] = []
    counted: set[tuple[str, str]] = set()
    for pod in _summary(cluster):
        name = (pod["podRef"]["namespace"], pod["podRef"]["name"])
        if name not in names:
            continue
        for container in pod.get("containers", []):
            memory = container.get("memory", {})
            if "workingSetBytes" not in memory or _time(memory["time"]) < after:
                return None
            found.append(int(memory["workingSetBytes"]))
            counted.add(name)
    return found if counted == names else None


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def _summary(cluster: Cluster) -> list[Any]:
    [node] = cluster.get("nodes")["items"]
    path = f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary"
    pods: list[Any] = json.loads(cluster.kubectl("get", "--raw", path))["pods"]
    return pods
