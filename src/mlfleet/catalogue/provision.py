"""Give a tenant its database at its first request, and take it away when the tenant goes.

Brings catalogue, administrator and fleet key together. Each step is repeatable and the state in
the catalogue is written last, so a process that dies in the middle is finished by the next call.
"""

import contextlib
import secrets
import shutil
from pathlib import Path

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.catalogue.models import Tenant
from mlfleet.catalogue.rows import unknown
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.admin import Admin
from mlfleet.database.keys import FleetKey
from mlfleet.database.template import mlflow_version
from mlfleet.errors import FleetError, NoCapacityError, WrongVersionError


class Provisioner:
    """Makes, opens, re-keys and removes the databases of tenants; may be shared by threads."""

    def __init__(self, catalogue: Catalogue, admin: Admin, key: FleetKey) -> None:
        self.catalogue, self.admin, self.key = catalogue, admin, key

    def ensure_database(self, name: str) -> DatabaseAccess:
        """Return the way into a tenant's database, which is made if this is its first request.

        Two calls at once, in whatever processes, make one database.

        Raises:
            UnknownTenantError: not registered, or being deleted.
            NoCapacityError: it is being upgraded; try again.
            WrongVersionError: its data is of another MLflow version; says what to do.
            DatabaseAwayError: Postgres is away; try again.
        """
        tenant = self._usable(name)
        if tenant.state == "ready":
            return self.access(tenant)
        password = self.key.database_password(tenant.id, tenant.password_generation)
        is_new = self.admin.clone(tenant.id, password)
        values = {"state": "ready", **({"mlflow_version": mlflow_version()} if is_new else {})}
        try:
            tenant = self.catalogue.change(name, values, expect=("registered", "ready"))
        except FleetError:
            # Deleted while it was being made: nobody else knows of this database.
            if (now := self.catalogue.tenant(name)) is None or now.id != tenant.id:
                self.admin.drop(tenant.id)
            raise
        return self.access(self._usable(name))

    def access(self, tenant: Tenant) -> DatabaseAccess:
        """Return the way into the database of a tenant that is ready."""
        password = self.key.database_password(tenant.id, tenant.password_generation)
        return self.admin.access(tenant.id, password)

    def rotate_password(self, name: str, *, actor: str = "operator") -> None:
        """Give the tenant's role a new password.

        The generation is committed first, together with the state `registered`: if this process
        dies before the role is changed, the next request does it. Open sessions go on; a gateway
        puts the instance to sleep when it sees another `password_generation`.
        """
        tenant = self._usable(name)
        self.catalogue.change(
            name,
            {"password_generation": tenant.password_generation + 1, "state": "registered"},
            expect=(tenant.state,), actor=actor, action="tenant.rotate_password",
        )  # fmt: skip
        if tenant.state == "ready":
            self.ensure_database(name)

    def delete(self, name: str, artifacts: Path, *, actor: str = "operator") -> None:
        """Remove a tenant: database, role, local files, rows. May be repeated after a failure.

        From the first step on gateways refuse the tenant (state `deleting`). An instance that is
        awake loses its database at once; evict it before, to let running requests finish.

        Args:
            artifacts: the fleet's folder of artifacts; the tenant's is `<artifacts>/<id>`.
        """
        tenant = self.catalogue.set_state(name, "deleting")
        self.admin.drop(tenant.id)
        remove_folder(artifacts / str(tenant.id))
        self.catalogue.forget(tenant.id, actor=actor)

    def _usable(self, name: str) -> Tenant:
        tenant = self.catalogue.tenant(name)
        if tenant is None or tenant.state == "deleting":
            raise unknown(name)
        if tenant.state == "upgrading":
            raise NoCapacityError(f"tenant {name!r} is being upgraded: try again in a moment")
        check_version(tenant)
        return tenant


def check_version(tenant: Tenant) -> None:
    """Refuse a tenant whose data belongs to another MLflow than the installed one."""
    if tenant.state == "ready" and tenant.mlflow_version != mlflow_version():
        raise WrongVersionError(
            f"tenant {tenant.name!r} has data of MLflow {tenant.mlflow_version}, here is "
            f"{mlflow_version()}: serve it from a fleet with mlflow=={tenant.mlflow_version}"
        )


def remove_folder(folder: Path) -> None:
    """Delete a folder with all its files; from the first moment it is not there by its name."""
    doomed = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.deleted")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
    # Those of earlier attempts, too.
    for path in folder.parent.glob(f".{folder.name}.*.deleted"):
        shutil.rmtree(path)
