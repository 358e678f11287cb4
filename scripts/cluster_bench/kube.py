"""The cluster that KUBECONFIG names, through kubectl; every wait has a deadline and a name."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

KUBECTL = Path(sys.executable).with_name("kubectl")
CALL_S = 60.0
POLL_S = 0.5
CONTROLS = "serving.knative.dev/service"

Document = dict[str, Any]


class BenchError(Exception):
    """The run cannot go on; the text says why and what to look at."""


class Cluster:
    """Kubernetes, for as long as one run may take."""

    def __init__(self, most_s: float) -> None:
        self.deadline = time.monotonic() + most_s

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Return what kubectl printed.

        Raises:
            BenchError: it failed, or took longer than a minute.
        """
        command = [str(KUBECTL), f"--request-timeout={CALL_S:g}s", *arguments]
        try:
            run = subprocess.run(
                command, input=stdin, capture_output=True, text=True, timeout=CALL_S + 5
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"kubectl {' '.join(arguments)}: no answer in {CALL_S:g} s") from None
        if run.returncode:
            raise BenchError(f"kubectl {' '.join(arguments)}: {run.stderr.strip()[:500]}")
        return run.stdout

    def get(self, *arguments: str) -> Any:
        """Return objects as documents."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def exists(self, namespace: str, name: str) -> bool:
        """Return whether there is an object of this KIND/NAME."""
        found = self.kubectl("-n", namespace, "get", name, "--ignore-not-found", "-o", "name")
        return bool(found.strip())

    def apply(self, *documents: Document) -> None:
        """Make objects, or change them to what the documents say."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(listed))

    def until(self, what: str, is_so: Callable[[], Any], wait_s: float = 120.0) -> Any:
        """Wait for a condition and return its (true) value.

        Raises:
            BenchError: it did not come within its time, or within the run's.
        """
        deadline = min(time.monotonic() + wait_s, self.deadline)
        while True:
            if time.monotonic() > deadline:
                late = "the run's time is over" if deadline == self.deadline else f"{wait_s:g} s"
                raise BenchError(f"waited in vain ({late}): {what}; see `kubectl get pods -A`")
            if value := is_so():
                return value
            time.sleep(POLL_S)

    def service_is_ready(self, namespace: str, name: str) -> bool:
        """Return whether Knative calls a Service's newest revision ready."""
        service = self.get("-n", namespace, f"ksvc/{name}")
        status = service.get("status", {})
        conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
        is_seen = status.get("observedGeneration") == service["metadata"]["generation"]
        return is_seen and conditions.get("Ready") == "True"

    def pods(self, namespace: str, service: str) -> list[Document]:
        """Return the pods of a Knative Service that are not on their way out."""
        items = self.get("-n", namespace, "pods", "-l", f"{CONTROLS}={service}")["items"]
        return [pod for pod in items if "deletionTimestamp" not in pod["metadata"]]

    def url(self, namespace: str, service: str) -> str:
        """Return a Knative Service's address."""
        return str(self.get("-n", namespace, f"ksvc/{service}")["status"]["url"])
