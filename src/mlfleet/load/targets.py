"""The tracking servers that users speak with: tenants of a fleet, or servers that a file names."""

import contextlib
import dataclasses
import datetime
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mlfleet.errors import FleetError, NotRunningError
from mlfleet.load.population import tenant_names
from mlfleet.runtime.cell_admin import CellAdmin
from mlfleet.runtime.folder import DataFolder

TOKEN_NAME = "load"
TOKEN_LIFE = datetime.timedelta(days=1)
POLL_S = 2.0
"""A gateway asks the catalogue each second what changed; tokens are new in each run."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One tracking server as its users see it; the last two fields are for the checker.

    Of a fleet's tenant the checker finds them in the data folder, so they are None.
    """

    tenant: str
    url: str
    token: str | None = dataclasses.field(default=None, repr=False)
    database_uri: str | None = dataclasses.field(default=None, repr=False)
    artifacts: str | None = None


def read_targets(path: Path) -> list[Target]:
    """Read a file of targets.

    Raises:
        FleetError: there is none, or it is not one.
    """
    try:
        rows = json.loads(path.read_text())
        targets = [Target(**row) for row in rows]
    except OSError as exc:
        raise FleetError(f"{path} cannot be read: {exc.strerror}") from exc
    except (TypeError, ValueError) as exc:
        raise FleetError(
            f"{path} is no list of targets ({exc}): it must be JSON like"
            ' [{"tenant": "a", "url": "http://host/a", "token": "..."}]'
        ) from exc
    for target in targets:
        parts = urlsplit(target.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise FleetError(f"{path}: {target.url!r} is no address of a tracking server")
    if not targets:
        raise FleetError(f"{path} names no target")
    return targets


def write_targets(path: Path, targets: Sequence[Target]) -> None:
    """Write a file of targets for its owner only: it holds tokens."""
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump([dataclasses.asdict(target) for target in targets], file)
    draft.rename(path)


def same_address(one: str, other: str) -> bool:
    """Say whether two addresses name the same server, whatever path follows."""
    return _address(one) == _address(other)


def _address(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
    return parts.scheme, host, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


@dataclasses.dataclass(frozen=True)
class Fleet:
    """A running fleet, as a load run needs it."""

    data: Path
    url: str
    admin_uri: str = dataclasses.field(repr=False)
    cells: dict[str, str] = dataclasses.field(default_factory=dict)
    """Path of each cell's admin socket; none when the fleet is on other machines."""

    @property
    def is_here(self) -> bool:
        """Whether its processes are on this machine."""
        return bool(self.cells)

    def register(self, count: int) -> list[Target]:
        """Register the tenants of load tests that are not there yet; give each a new token."""
        from mlfleet.catalogue.catalogue import Catalogue

        names = tenant_names(count)
        expires_at = datetime.datetime.now(datetime.UTC) + TOKEN_LIFE
        with contextlib.closing(Catalogue(self.admin_uri)) as catalogue:
            catalogue.create_tenants(names, actor="load")
            tokens = catalogue.put_tokens(names, TOKEN_NAME, expires_at, actor="load")
        time.sleep(POLL_S)
        return [Target(name, f"{self.url}/{name}", tokens[name]) for name in names]

    def put_to_sleep(self, targets: Sequence[Target]) -> None:
        """Let every tenant have a database and then sleep, as before a wake storm.

        A tenant that was only registered would spend the storm being made. A fleet on other
        machines is left as it is: its tenants sleep, and its cells end, by themselves.
        """
        from mlfleet.catalogue.catalogue import Catalogue

        if not self.is_here:
            return
        with contextlib.closing(Catalogue(self.admin_uri)) as catalogue:
            known = {str(tenant.name): tenant for tenant in catalogue.tenants()}
        for target in targets:
            tenant = known[target.tenant]
            cell = CellAdmin(tenant.cell, self.cells[tenant.cell])
            if tenant.state == "registered":
                cell.wake(tenant.name)
            cell.sleep(tenant.name)


def find_fleet(data: Path, host: str | None, admin_uri: str | None) -> Fleet:
    """Return the fleet that runs here, or one on other machines.

    Args:
        data: its data folder.
        host: address of a fleet on other machines, if there is none here.
        admin_uri: the Postgres of that fleet, as administrator.

    Raises:
        NotRunningError: none runs here, and no other is named.
    """
    try:
        file = DataFolder(data).read()
    except NotRunningError:
        if host and admin_uri:
            return Fleet(data, host.rstrip("/"), admin_uri)
        raise
    return Fleet(data, file.url, file.admin_uri, file.cells)
