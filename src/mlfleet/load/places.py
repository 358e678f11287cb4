"""Where each tenant of a load run keeps its rows and files."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.database.admin import database_name
from mlfleet.database.connect import connect
from mlfleet.database.statement import column
from mlfleet.errors import NotRunningError, UnknownTenantError
from mlfleet.load.targets import Target
from mlfleet.runtime.folder import DataFolder
from mlfleet.settings import Settings


@dataclasses.dataclass(frozen=True)
class Place:
    """One tenant's database and artifact folder."""

    tenant: str
    uri: str = dataclasses.field(repr=False)
    database: str | None
    """Another one than the address names."""
    artifacts: Path | None
    """None: on no disk of this machine."""
    is_there: bool = True
    """Whether the database exists; that of a tenant without a request does not."""


def places(targets: Sequence[Target], data: Path) -> list[Place]:
    """Return the place of each target.

    Args:
        data: the fleet's data folder, for the targets that do not name a database.

    Raises:
        NotRunningError: it is needed, and no fleet runs there.
        UnknownTenantError: the fleet has no such tenant.
    """
    named = [_named(target) for target in targets if target.database_uri]
    unnamed = [target.tenant for target in targets if not target.database_uri]
    return named + (_in_fleet(unnamed, DataFolder(data)) if unnamed else [])


def _named(target: Target) -> Place:
    folder = _folder(target.artifacts) if target.artifacts else None
    return Place(target.tenant, target.database_uri or "", None, folder)


def _in_fleet(names: Sequence[str], folder: DataFolder) -> list[Place]:
    uri = _admin_uri(folder)
    with contextlib.closing(Catalogue(uri)) as catalogue:
        known = {str(tenant.name): tenant for tenant in catalogue.tenants()}
    if missing := [name for name in names if name not in known]:
        raise UnknownTenantError(
            f"the fleet in {folder.path} has no tenant {missing[0]!r}"
            f" ({len(missing)} of {len(names)} of this load run): is it another fleet's run?"
        )
    with contextlib.closing(connect(uri)) as connection:
        there = set(column(connection, "SELECT datname FROM pg_database"))
    found = []
    for name in names:
        tenant = known[name]
        root = _folder(tenant.artifact_uri or str(folder.artifacts / str(tenant.id)))
        database = database_name(tenant.id)
        found.append(Place(name, uri, database, root, database in there))
    return found


def _admin_uri(folder: DataFolder) -> str:
    """Return the fleet's Postgres; of a fleet on other machines only the environment knows it."""
    try:
        return folder.read().admin_uri
    except NotRunningError:
        if elsewhere := Settings.from_environ().admin_uri:
            return elsewhere
        raise


def _folder(location: str) -> Path | None:
    """Return the folder that an artifact root is, or None if it is a bucket."""
    parts = urlsplit(location)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
