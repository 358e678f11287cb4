"""An API server as a dictionary that keeps objects, with its refusals; live/ has a real one."""

import base64
import copy

from mlfleet.cluster.api import (
    KNATIVE_SERVICES,
    SECRETS,
    AbsentError,
    Api,
    ClusterError,
    ConflictError,
    Document,
    Kind,
)

from .test_cells import first


class Shelf(Api):
    """An API server's store: objects by kind and name, with its refusals."""

    def __init__(self) -> None:
        self.namespace = "mlfleet"
        self.objects: dict[tuple[Kind, str], Document] = {}
        self.patches: list[tuple[Kind, str]] = []
        self.takes_patches = True

    def get(self, kind: Kind, name: str, namespace: str | None = "") -> Document:
        if (kind, name) not in self.objects:
            raise AbsentError(f"no {name}")
        return copy.deepcopy(self.objects[kind, name])

    def list(self, kind: Kind, labels: str = "", namespace: str | None = "") -> list[Document]:
        return [copy.deepcopy(one) for (k, _), one in self.objects.items() if k == kind]

    def create(self, kind: Kind, document: Document) -> Document:
        name = document["metadata"]["name"]
        if (kind, name) in self.objects:
            raise ConflictError(f"{name} is there")
        self.objects[kind, name] = encoded(copy.deepcopy(document))
        return document

    def patch(self, kind: Kind, name: str, change: Document, part: str = "") -> Document:
        if not self.takes_patches:
            raise ClusterError("the API server does not answer")
        if (kind, name) not in self.objects:
            raise AbsentError(f"no {name}")
        document = self.objects[kind, name]
        for key, value in change.items():
            document.setdefault(key, {}).update(value)
        self.patches.append((kind, name))
        return encoded(document)

    def add_cell(self, name: str, *, is_routed: bool = True) -> None:
        cell = first()
        cell["metadata"]["name"] = name
        routes = {"type": "RoutesReady", "status": str(is_routed)}
        cell["status"] = {"url": f"http://{name}.mlfleet.example.test", "conditions": [routes]}
        self.objects[KNATIVE_SERVICES, name] = cell


def encoded(document: Document) -> Document:
    """Keep a Secret's text as the API server does."""
    for key, text in document.pop("stringData", {}).items():
        document.setdefault("data", {})[key] = base64.b64encode(text.encode()).decode()
    return document


def secret_of(shelf: Shelf, tenant: str) -> dict[str, str]:
    data = shelf.objects[SECRETS, f"{tenant}-mlflow"]["data"]
    return {key: base64.b64decode(text).decode() for key, text in data.items()}
