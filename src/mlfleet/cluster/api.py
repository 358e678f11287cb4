"""Speak with a Kubernetes API server; the only place that knows how its client reports errors.

Objects are plain documents (as YAML has them), because what is sent on is mostly copied whole.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from mlfleet.errors import FleetError

NAMESPACE = "mlfleet"
ACCOUNT_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TIMEOUT_S = 20.0

Document = dict[str, Any]


class ClusterError(FleetError):
    """The API server refused, or cannot be reached."""


class ConflictError(ClusterError):
    """An object of that name is there already, or has changed meanwhile."""


class AbsentError(ClusterError):
    """There is no such object, or no such kind of object."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of object, and where its documents live."""

    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        """What a document of this kind says first."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "") -> str:
        """Return the path of one document, or of all of them."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{place}/{self.plural}" + (f"/{name}" if name else "")


TENANTS = Kind("mlfleet.dev", "v1alpha1", "tenants")
KNATIVE_SERVICES = Kind("serving.knative.dev", "v1", "services")
SECRETS = Kind("", "v1", "secrets")
CONFIG_MAPS = Kind("", "v1", "configmaps")
PODS = Kind("", "v1", "pods")
CLAIMS = Kind("", "v1", "persistentvolumeclaims")
STORAGE_CLASSES = Kind("storage.k8s.io", "v1", "storageclasses")
DEFINITIONS = Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions")
JOBS = Kind("batch", "v1", "jobs")
EVENTS = Kind("", "v1", "events")


class Api:
    """One API server, as one user, and by default one namespace."""

    def __init__(self, namespace: str = NAMESPACE) -> None:
        """Find the cluster: as a pod by its account, else by KUBECONFIG.

        Raises:
            ClusterError: neither is there.
        """
        self.namespace = namespace
        try:
            config.load_incluster_config()
        except config.ConfigException:
            try:
                config.load_kube_config()
            except (config.ConfigException, OSError) as exc:
                raise ClusterError(
                    f"no cluster to speak with ({exc}): set KUBECONFIG to a file that `kubectl` "
                    "works with"
                ) from exc
        self._client = client.ApiClient()

    @classmethod
    def of_pod(cls) -> Self:
        """Speak with the cluster this pod runs in, about the pod's own namespace."""
        return cls(ACCOUNT_NAMESPACE.read_text().strip())

    def get(self, kind: Kind, name: str, namespace: str | None = "") -> Document:
        """Return one document; `namespace` None is for kinds outside namespaces.

        Raises:
            AbsentError: there is none.
        """
        return self._call("GET", kind.path(self._place(namespace), name))

    def find(self, kind: Kind, name: str, namespace: str | None = "") -> Document | None:
        """Return one document, or none if it is not there."""
        try:
            return self.get(kind, name, namespace)
        except AbsentError:
            return None

    def list(
        self, kind: Kind, labels: str = "", namespace: str | None = "", *, fields: str = ""
    ) -> list[Document]:
        """Return all documents of a kind, page by page so that 10,000 of them pass too."""
        found: list[Document] = []
        chosen = [("limit", "500"), ("labelSelector", labels), ("fieldSelector", fields)]
        more = ""
        while True:
            query = [*chosen, ("continue", more)]
            page = self._call("GET", kind.path(self._place(namespace)), query=query)
            found += page["items"]
            more = page["metadata"].get("continue", "")
            if not more:
                return found

    def create(self, kind: Kind, document: Document) -> Document:
        """Make an object.

        Raises:
            ConflictError: one of that name is there.
        """
        body = {"apiVersion": kind.api_version, **document}
        return self._call("POST", kind.path(self.namespace), body)

    def patch(self, kind: Kind, name: str, change: Document, part: str = "") -> Document:
        """Merge a change into an object, or into its `part` (`status`)."""
        path = kind.path(self.namespace, name) + (f"/{part}" if part else "")
        return self._call("PATCH", path, change, content="application/merge-patch+json")

    def delete(self, kind: Kind, name: str) -> None:
        """Ask for an object's deletion; it may take its time.

        Raises:
            AbsentError: there is none.
        """
        self._call("DELETE", kind.path(self.namespace, name))

    def log(self, pod: str, container: str, lines: int) -> str:
        """Return the last lines that a container of a pod has written; also of one that ended."""
        path = PODS.path(self.namespace, f"{pod}/log")
        query = [("container", container), ("tailLines", str(lines))]
        return self._read("GET", path, query=query).decode(errors="replace")

    def version(self) -> str:
        """Return the API server's version."""
        return str(self._call("GET", "/version")["gitVersion"])

    def _place(self, namespace: str | None) -> str | None:
        return self.namespace if namespace == "" else namespace

    def _call(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        query: Any = (),
        content: str = "application/json",
    ) -> Document:
        document: Document = json.loads(
            self._read(method, path, body, query=query, content=content)
        )
        return document

    def _read(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        *,
        query: Any = (),
        content: str = "application/json",
    ) -> bytes:
        headers = {"Accept": "application/json, */*", "Content-Type": content}
        try:
            answer = self._client.call_api(
                *self._client.param_serialize(
                    method,
                    path,
                    query_params=[(key, value) for key, value in query if value],
                    header_params=headers,
                    body=body,
                    auth_settings=["BearerToken"],
                ),
                _request_timeout=TIMEOUT_S,
            )
            data: bytes = answer.read()
        except ApiException as exc:
            raise _explained(exc, path) from exc
        except urllib3.exceptions.HTTPError as exc:
            raise ClusterError(
                f"the API server does not answer ({exc}): is KUBECONFIG right, is it up?"
            ) from exc
        if not 200 <= answer.status < 300:
            raise _explained(ApiException(status=answer.status, body=data.decode()), path)
        return data


def _explained(exc: ApiException, path: str) -> ClusterError:
    """Return the API server's own sentence as our error."""
    try:
        message = str(json.loads(exc.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{path}: {exc.status} {exc.reason or ''}".rstrip()
        if exc.status == 404:
            # Without a document in the answer it is the kind that is missing, not the object.
            message = (
                f"this cluster does not know {path.split('/')[2]}: "
                "`mlfleet --cluster doctor` says what has to be installed"
            )
    kind = {404: AbsentError, 409: ConflictError}.get(exc.status or 0, ClusterError)
    return kind(message)
