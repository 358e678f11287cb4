"""What an instance is started with: its database, folder, log file and secrets.

Runs in a few threads of its own, since cloning a database blocks. The secrets are derived from the
fleet key here, in the gateway, and go straight to the one instance they belong to.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mlfleet.catalogue.models import Tenant
from mlfleet.catalogue.provision import Provisioner, check_version
from mlfleet.cell.confinement import may_set_users
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.waking import Birth
from mlfleet.database.access import DatabaseAccess
from mlfleet.database.admin import CLONES_AT_ONCE
from mlfleet.errors import FleetError
from mlfleet.settings import Settings

log = logging.getLogger(__name__)

WARM_RETRY_S = 0.25
WARM_SAY_S = 10.0


class Provision:
    """Makes what a waking tenant needs."""

    def __init__(self, settings: Settings, provisioner: Provisioner) -> None:
        self._settings = settings
        self._provisioner = provisioner
        self._artifacts = settings.data.absolute() / "artifacts"
        self._threads = ThreadPoolExecutor(CLONES_AT_ONCE, thread_name_prefix="provision")
        self._artifacts.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.has_own_users = may_set_users(self._artifacts)
        """Each instance runs as a user of its own."""

    async def birth(self, tenant: Tenant) -> Birth:
        """Return what the tenant's instance is started with, making it if need be.

        A tenant that is ready costs no query, so it wakes while the catalogue is away.

        Raises:
            DatabaseAwayError: Postgres cannot be reached now.
            UnknownTenantError: the tenant was deleted meanwhile.
        """
        if tenant.state == "ready":
            check_version(tenant)
            database = self._provisioner.access(tenant)
        else:
            ensure = self._provisioner.ensure_database
            loop = asyncio.get_running_loop()
            database = await loop.run_in_executor(self._threads, ensure, tenant.name)
        config = InstanceConfig(
            tenant=tenant.name,
            database=database,
            artifact_root=tenant.artifact_uri or str(self._artifacts / str(tenant.id)),
            kek_passphrase=self._provisioner.key.kek_passphrase(tenant.id),
            memory_bytes=tenant.quota.memory_bytes,
            artifact_bytes=tenant.quota.artifact_bytes,
            database_idle_s=self._settings.database_idle_s,
            database_wait_s=self._settings.database_wait_s,
            s3_environment=_s3_environment(self._settings) if tenant.artifact_uri else {},
        )
        uid = self._settings.uid_base + tenant.id if self.has_own_users else None
        if tenant.artifact_uri is None:
            _make_folder(self._artifacts / str(tenant.id), uid)
        log_file = self._settings.data / "logs" / f"{tenant.name}.log"
        return Birth(config, log_file, uid, (tenant.id, tenant.password_generation))

    @contextlib.asynccontextmanager
    async def warm_database(self) -> AsyncIterator[DatabaseAccess]:
        """Lend a throw-away database, waiting for Postgres and the template as long as it takes."""
        loop = asyncio.get_running_loop()
        said = -WARM_SAY_S
        while True:
            lending = self._provisioner.admin.throwaway()
            try:
                access = await loop.run_in_executor(self._threads, lending.__enter__)
            except FleetError as exc:
                if loop.time() - said >= WARM_SAY_S:
                    said = loop.time()
                    log.warning("warm_database_waits", extra={"reason": str(exc)})
                await asyncio.sleep(WARM_RETRY_S)
            else:
                break
        try:
            yield access
        finally:
            await loop.run_in_executor(self._threads, lending.__exit__, None, None, None)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _s3_environment(settings: Settings) -> dict[str, str]:
    """Return the variables by which boto3 and MLflow reach S3."""
    variables = {
        "MLFLOW_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "AWS_DEFAULT_REGION": settings.s3_region,
        "AWS_ACCESS_KEY_ID": settings.s3_access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.s3_secret_access_key,
    }
    return {name: value for name, value in variables.items() if value is not None}


def _make_folder(folder: Path, uid: int | None) -> None:
    """Make a tenant's artifact root, for its own user only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is None or folder.stat().st_uid == uid:
        return
    # A restored folder has files of whoever restored it. The folder itself comes last (bottom-up),
    # so that an interrupted walk is done again.
    for _, folders, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in (*folders, *files):
            os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
    os.chown(folder, uid, uid)
