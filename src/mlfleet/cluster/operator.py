"""Follow Tenant objects: `python -m mlfleet.cluster.operator`.

kopf watches, retries, keeps finalizers and reports what failed; `reconcile` knows what to do.
While this process is away tenants are served as ever: only new wishes wait.
"""

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Callable
from typing import Any

import kopf

from mlfleet import log as fleet_log
from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.cluster import tenants
from mlfleet.cluster.api import TENANTS, Api, Document
from mlfleet.cluster.reconcile import CellNotReadyError, Reconciler, UnknownCellError
from mlfleet.cluster.view import different
from mlfleet.cluster.waiting import Waiting
from mlfleet.database.admin import Admin
from mlfleet.errors import FleetError, NoCapacityError
from mlfleet.settings import Settings

log = logging.getLogger(__name__)

GROUP = TENANTS.group
THREADS = 4
"""Tenants worked on at once; the catalogue's pool has as many connections."""
WORKERS = 1000
"""Tenants looked at at once, at some 35 KiB each. Many, because one that is to be tried again keeps
its place until then."""
WORKER_IDLE_S = 0.5
SOON_S = 3.0
LATER_S = 30.0
POLL_S = 5.0
HEALTH = "http://0.0.0.0:8081/healthz"

registry = kopf.OperatorRegistry()


@kopf.on.startup(registry=registry)
async def begin(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Set kopf up, and begin to follow the catalogue."""
    settings.execution.max_workers = THREADS
    settings.persistence.finalizer = f"{GROUP}/operator"
    prefix = f"operator.{GROUP}"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=prefix)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=prefix)
    settings.posting.level = logging.WARNING
    settings.watching.server_timeout = 300
    settings.watching.chunk_size = 500
    # Unlimited, a restart would hold all tenants in memory at once, each for 5 s after it is done.
    settings.queueing.worker_limit = WORKERS
    settings.queueing.idle_timeout = WORKER_IDLE_S
    # Its one namespace and kind are known: following all of them is not this account's right.
    settings.scanning.disabled = True
    with contextlib.suppress(FleetError):  # Postgres may come up later; then they are read then
        await asyncio.to_thread(memo.reconciler.view.begin)
    memo.chores = (
        asyncio.create_task(
            regularly(memo.reconciler.refresh, POLL_S), name="follow the catalogue"
        ),
        asyncio.create_task(regularly(memo.waiting.touch, SOON_S), name="follow the cells"),
    )


@kopf.on.login(registry=registry)
def login(**context: Any) -> Any:
    """Speak as the pod's account; a registry of one's own brings no way to log in."""
    return kopf.login_with_service_account(**context)


@kopf.on.cleanup(registry=registry)
async def end(memo: kopf.Memo, **_: Any) -> None:
    """Stop following catalogue and cells."""
    for chore in memo.chores:
        chore.cancel()
    await asyncio.gather(*memo.chores, return_exceptions=True)


@kopf.on.resume(TENANTS.group, TENANTS.plural, registry=registry)
@kopf.on.create(TENANTS.group, TENANTS.plural, registry=registry)
@kopf.on.update(TENANTS.group, TENANTS.plural, registry=registry)
def settle(
    name: str,
    uid: str,
    spec: kopf.Spec,
    status: kopf.Status,
    meta: kopf.Meta,
    patch: kopf.Patch,
    memo: kopf.Memo,
    **_: Any,
) -> None:
    """Bring a tenant to where its object wants it, and say in its status how that went.

    Only what differs is written: a restart finds ten thousand tenants that are as they should be.
    """
    new: Document = {}

    def say(is_true: bool, reason: str, message: str) -> None:
        new["observedGeneration"] = meta.get("generation", 0)
        new["conditions"] = tenants.condition(
            status.get("conditions", []),
            is_true=is_true,
            reason=reason,
            message=message,
            generation=meta.get("generation", 0),
            now=datetime.datetime.now(datetime.UTC),
        )
        patch.status.update(different(new, status))

    def refuse(exc: FleetError) -> None:
        say(False, type(exc).__name__.removesuffix("Error"), str(exc))

    memo.waiting.remove(name)
    try:
        new.update(memo.reconciler.settle(name, uid, dict(spec), status))
    except (UnknownCellError, CellNotReadyError) as exc:
        refuse(exc)
        memo.waiting.add(name, exc.cell, exc.seen)
    except FleetError as exc:
        refuse(exc)
        raise kopf.TemporaryError(str(exc), delay=_pause_s(exc)) from exc
    else:
        say(True, "Registered", "Its database is made at its first request.")


@kopf.on.delete(TENANTS.group, TENANTS.plural, registry=registry)
async def remove(name: str, memo: kopf.Memo, **_: Any) -> None:
    """Remove all that a tenant owns before its object may go."""
    memo.waiting.remove(name)
    try:
        await memo.reconciler.remove(name)
    except FleetError as exc:
        raise kopf.TemporaryError(str(exc), delay=_pause_s(exc)) from exc


def _pause_s(exc: FleetError) -> float:
    return SOON_S if isinstance(exc, NoCapacityError) else LATER_S


async def regularly(work: Callable[[], None], every_s: float) -> None:
    """Do something again and again; what fails is done with the next turn."""
    while True:
        try:
            await asyncio.to_thread(work)
        except FleetError as exc:
            log.warning("chore_failed", extra={"chore": work.__qualname__, "reason": str(exc)})
        await asyncio.sleep(every_s)


def plainly(record: logging.LogRecord) -> bool:
    """Let a record of kopf's carry the tenant's name instead of all settings and references."""
    fields = vars(record)
    fields.pop("settings", None)
    fields.pop("k8s_skip", None)
    if reference := fields.pop("k8s_ref", None):
        record.tenant = reference.get("name")
    return True


def main() -> None:
    """Run until told to stop."""
    fleet_log.configure()
    for handler in logging.getLogger().handlers:
        handler.addFilter(plainly)
    settings = Settings.from_environ()
    if settings.admin_uri is None:
        raise FleetError("MLFLEET_ADMIN_URI is not set: postgresql://USER:PASSWORD@HOST/postgres")
    api = Api.of_pod()
    reconciler = Reconciler(
        api,
        Catalogue(settings.admin_uri),
        Admin(settings.admin_uri),
        settings.data / "artifacts",
    )
    kopf.run(
        registry=registry,
        standalone=True,
        namespaces=[api.namespace],
        liveness_endpoint=HEALTH,
        memo=kopf.Memo(reconciler=reconciler, waiting=Waiting(api)),
    )


if __name__ == "__main__":
    main()
