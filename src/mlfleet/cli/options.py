"""Options that several commands share, and how the commands reach a running fleet."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlfleet.errors import FleetError, NotRunningError, UnknownTenantError
from mlfleet.runtime.cell_admin import CellAdmin
from mlfleet.runtime.folder import DataFolder, FleetFile
from mlfleet.settings import Settings

if TYPE_CHECKING:
    from mlfleet.catalogue.catalogue import Catalogue
    from mlfleet.catalogue.models import Tenant
    from mlfleet.catalogue.provision import Provisioner
    from mlfleet.database.admin import Admin

Function = Callable[..., Any]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document on stdout."
)


def _data_folder(_context: click.Context, _option: click.Parameter, path: Path | None) -> Path:
    return path or Settings.from_environ().data


data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    callback=_data_folder,
    help="Folder of the fleet.  [default: MLFLEET_DATA, else ./.mlfleet]",
)


class Fleet:
    """A fleet that runs on this machine, found by its data folder."""

    def __init__(self, data: Path) -> None:
        """Name the fleet; it is looked for when it is first needed."""
        self.folder = DataFolder(data)

    @functools.cached_property
    def file(self) -> FleetFile:
        """How to reach the fleet.

        Raises:
            NotRunningError: none runs here.
        """
        return self.folder.read()

    @functools.cached_property
    def catalogue(self) -> "Catalogue":
        """The fleet's catalogue; imported here, because sqlalchemy takes its time."""
        uri = self.file.admin_uri
        from mlfleet.catalogue.catalogue import Catalogue

        return Catalogue(uri)

    @functools.cached_property
    def catalogue_anywhere(self) -> "Catalogue":
        """The catalogue, also where no fleet runs but MLFLEET_ADMIN_URI names its Postgres.

        So it is in the operator's pod. For commands that need neither a cell nor a folder.
        """
        try:
            return self.catalogue
        except NotRunningError:
            if (uri := Settings.from_environ().admin_uri) is None:
                raise
            from mlfleet.catalogue.catalogue import Catalogue

            return Catalogue(uri)

    @functools.cached_property
    def admin(self) -> "Admin":
        """The fleet's Postgres, as its administrator."""
        uri = self.file.admin_uri
        from mlfleet.database.admin import Admin

        return Admin(uri)

    @functools.cached_property
    def provisioner(self) -> "Provisioner":
        """What makes and removes tenants' databases."""
        from mlfleet.catalogue.provision import Provisioner
        from mlfleet.database.keys import FleetKey

        key = FleetKey.from_file(self.folder.secret_key)
        return Provisioner(self.catalogue, self.admin, key)

    def cells(self) -> list[CellAdmin]:
        """Return the cells that run here."""
        return [CellAdmin(name, path) for name, path in self.file.cells.items()]

    def cell_of(self, tenant: str) -> CellAdmin:
        """Return the cell that serves a tenant.

        Raises:
            UnknownTenantError: there is no such tenant.
        """
        cell = self.tenant(tenant).cell
        if cell not in self.file.cells:
            raise FleetError(f"{tenant} belongs to {cell}, which does not run here")
        return CellAdmin(cell, self.file.cells[cell])

    def tenant(self, name: str) -> "Tenant":
        """Return what the catalogue says of a tenant.

        Raises:
            UnknownTenantError: there is no such tenant.
        """
        if (found := self.catalogue_anywhere.tenant(name)) is None:
            raise UnknownTenantError(f"no tenant {name!r}: `mlfleet tenant list` lists all")
        return found

    def url(self, tenant: str) -> str:
        """Return what a client puts into MLFLOW_TRACKING_URI."""
        return f"{self.file.url}/{tenant}"


def fleet_command(function: Function) -> Function:
    """Give a command `--data` and `--json`, and the running fleet as its first argument."""

    @data_option
    @json_option
    @functools.wraps(function)
    def with_fleet(*arguments: Any, data: Path, **options: Any) -> Any:
        return function(Fleet(data), *arguments, **options)

    return with_fleet
