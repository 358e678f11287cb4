"""The operator at work on a real catalogue and real databases; the API server is a shelf."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.cluster import reconcile
from mlfleet.cluster.api import CONFIG_MAPS
from mlfleet.cluster.reconcile import Reconciler
from mlfleet.database.admin import Admin

from .shelf import Shelf


@pytest.fixture
def shelf() -> Shelf:
    shelf = Shelf()
    shelf.add_cell("cell-0")
    shelf.objects[CONFIG_MAPS, reconcile.SETTINGS] = {"data": {"max-connections": "200"}}
    return shelf


@pytest.fixture
def catalogue(postgres: str) -> Iterator[Catalogue]:
    catalogue = Catalogue(postgres)
    catalogue.prepare()
    yield catalogue
    catalogue.close()


@pytest.fixture
def worker(
    shelf: Shelf, catalogue: Catalogue, postgres: str, tmp_path: Path
) -> Iterator[Reconciler]:
    admin = Admin(postgres)
    yield Reconciler(shelf, catalogue, admin, tmp_path)
    admin.close()
