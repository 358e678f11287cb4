"""Why a pod is not ready, in its own words: an unbound claim, a missing secret, its last complaint.

A probe's failure carries no text, so the log is read: our programs write why they wait or end.
"""

import datetime
import json
from collections.abc import Iterator

from mlfleet.cluster.api import PODS, Api, ClusterError, Document
from mlfleet.cluster.cells import CONTAINER

NAMES = ("cell", "database-prepare", "front", "operator", "pgbouncer", "postgres")
QUEUE_PROXY = "queue-proxy"
STARTING_S = 60.0
"""A pod younger than this is starting; that is no problem yet."""
LOG_LINES = 50
COMPLAINTS = ("warning", "error", "critical")
MOST_CHARACTERS = 400


def ours(api: Api) -> list[Document]:
    """Return the fleet's pods, without those on their way out and those that were evicted."""
    found = api.list(PODS, labels=f"app.kubernetes.io/name in ({','.join(NAMES)})")
    return [pod for pod in found if not _is_past(pod)]


def is_well(pod: Document) -> bool:
    """Return whether a pod serves, or has done its work: a Job's is ready from its first moment."""
    if pod["status"].get("phase") == "Succeeded":
        return True
    return not _is_of_job(pod) and any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in pod["status"].get("conditions", [])
    )


def is_starting(pod: Document, now: datetime.datetime) -> bool:
    """Return whether a pod is so young that it need not be ready."""
    born = datetime.datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    return (now - born).total_seconds() < STARTING_S


def reason(api: Api, pod: Document) -> str:
    """Return one line about why a pod is not ready."""
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _line(f"no node takes it: {condition.get('message', condition.get('reason'))}")
    for status in _unready(pod):
        if said := _container_reason(api, pod["metadata"]["name"], status):
            return _line(f"{status['name']}: {said}")
    return "it has not said why yet"


def complaint(lines: list[str]) -> str:
    """Return the last line of a log in which a program complains; else its last line."""
    for line in reversed(lines):
        record = _record(line)
        if record.get("level") in COMPLAINTS:
            return f"{record['event']}: {record['reason']}" if "reason" in record else line
    written = [line for line in lines if line.strip()]
    return written[-1] if written else ""


def _record(line: str) -> Document:
    try:
        record = json.loads(line)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _unready(pod: Document) -> Iterator[Document]:
    """Return the containers that are not as they should be, in the order they start."""
    for status in pod["status"].get("initContainerStatuses", []):
        ended = status.get("state", {}).get("terminated")
        if not (ended and ended["exitCode"] == 0):
            yield status
    statuses = {one["name"]: one for one in pod["status"].get("containerStatuses", [])}
    unready = [name for name, one in statuses.items() if not one["ready"] or _is_of_job(pod)]
    if QUEUE_PROXY in unready:
        # Knative moves a container's readiness probe there; who is not ready is the cell.
        unready = [CONTAINER, *(name for name in unready if name not in (CONTAINER, QUEUE_PROXY))]
    yield from (statuses[name] for name in unready if name in statuses)


def _is_past(pod: Document) -> bool:
    """Return whether another pod stands or will stand in its place."""
    was_evicted = pod["status"].get("phase") == "Failed" and not _is_of_job(pod)
    return was_evicted or "deletionTimestamp" in pod["metadata"]


def _is_of_job(pod: Document) -> bool:
    return any(one["kind"] == "Job" for one in pod["metadata"].get("ownerReferences", []))


def _container_reason(api: Api, pod: str, status: Document) -> str:
    waiting = status.get("state", {}).get("waiting")
    has_run = waiting is None or "terminated" in status.get("lastState", {})
    if not has_run:
        # A container that waits for the ones before it has nothing to tell.
        return "" if waiting["reason"] == "PodInitializing" else _waits(waiting)
    try:
        said = complaint(api.log(pod, status["name"], LOG_LINES).splitlines())
    except ClusterError as exc:
        said = f"its log cannot be read ({exc})"
    return said or (_waits(waiting) if waiting else "")


def _waits(waiting: Document) -> str:
    return ": ".join(filter(None, (waiting["reason"], waiting.get("message"))))


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= MOST_CHARACTERS else flat[: MOST_CHARACTERS - 1] + "…"
