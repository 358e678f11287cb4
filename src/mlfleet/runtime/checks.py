"""Decide what is well with a machine and its fleet, and say how to mend what is not.

Each check looks at one thing and returns findings; nothing is changed. A note is something that
weakens the fleet or is unusual, and that its owner may have chosen.
"""

import contextlib
import dataclasses
import os
import resource
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from mlfleet.database import template
from mlfleet.database.connect import Connection, connect
from mlfleet.errors import FleetError
from mlfleet.runtime import connections, ports
from mlfleet.runtime.folder import DataFolder
from mlfleet.runtime.kernel import KernelFeatures
from mlfleet.settings import Settings

OLDEST_POSTGRES = 14
LEAST_FREE_BYTES = 2 * 1024**3
FILES_PER_INSTANCE = 8
"""Descriptors the gateway holds for one awake tenant: control socket, log, pooled connections."""
FILES_FOR_CLIENTS = 512


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the doctor."""

    name: str
    verdict: Literal["ok", "note", "problem"]
    text: str
    mend: str = ""


def folder(data: DataFolder) -> Iterator[Finding]:
    """The data folder is ours alone, and has room."""
    if not data.path.is_dir():
        yield Finding(
            "data folder", "note", f"{data.path} is not there yet", "`mlfleet up` makes it"
        )
        return
    mode = data.path.stat().st_mode & 0o777
    if mode & 0o077:
        yield Finding(
            "data folder",
            "problem",
            f"{data.path} is open to others ({mode:o})",
            f"chmod 700 {data.path}",
        )
    else:
        yield Finding("data folder", "ok", f"{data.path}, for its owner only")
    free = shutil.disk_usage(data.path).free
    text = f"{free / 1024**3:.1f} GiB free below {data.path}"
    if free < LEAST_FREE_BYTES:
        yield Finding("disk", "problem", text, "make room: Postgres stops when the disk is full")
    else:
        yield Finding("disk", "ok", text)


def port(settings: Settings, *, is_running: bool) -> Finding:
    """The fleet answers on its port or, when it does not run, could."""
    where = f"{settings.host}:{settings.port}"
    if is_running:
        return Finding("port", "ok", f"the fleet listens on {where}")
    if ports.is_free(settings.host, settings.port):
        return Finding("port", "ok", f"{where} is free")
    return Finding(
        "port",
        "problem",
        f"something else listens on {where}",
        "end it, or choose another with `mlfleet up --port`",
    )


def open_files(max_awake: int) -> Finding:
    """The process may open as many files as the awake tenants need."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_awake * FILES_PER_INSTANCE + FILES_FOR_CLIENTS
    text = f"{hard} allowed, {needed} needed for {max_awake} awake tenants"
    if hard != resource.RLIM_INFINITY and hard < needed:
        return Finding(
            "open files",
            "problem",
            text,
            f"raise the hard limit (ulimit -Hn {needed}) or lower MLFLEET_MAX_AWAKE",
        )
    return Finding("open files", "ok", text)


def kernel(features: KernelFeatures) -> Iterator[Finding]:
    """What stands between one tenant's process and the others."""
    abi = features.landlock_abi
    if abi == 0:
        yield Finding(
            "landlock",
            "problem",
            f"missing in Linux {features.release}: a tenant's"
            " process is held back by its uid and seccomp only",
            "boot Linux 5.13 or later with lsm=landlock,…",
        )
    elif abi < 6:
        lacks = "signal scope (Linux 6.12)" if abi >= 4 else "network rules (6.7), scopes (6.12)"
        yield Finding(
            "landlock",
            "note",
            f"ABI {abi}: files are confined; without {lacks}",
            "boot a newer kernel",
        )
    else:
        yield Finding("landlock", "ok", f"ABI {abi}: files, network and signals are confined")
    if features.has_seccomp:
        yield Finding("seccomp", "ok", "system call filters work")
    else:
        yield Finding(
            "seccomp",
            "problem",
            "this kernel has no system call filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER",
        )
    yield _identity(features)


def _identity(features: KernelFeatures) -> Finding:
    if features.is_root:
        return Finding("user", "ok", "root: each tenant's process can get a uid of its own")
    return Finding(
        "user",
        "note",
        f"uid {os.geteuid()}: tenants' processes share it; Landlock and seccomp keep them apart",
        "run as root to give each tenant a uid of its own",
    )


def user_namespaces(features: KernelFeatures) -> Iterator[Finding]:
    """As root, the embedded Postgres runs inside one."""
    if not features.is_root:
        return
    if features.has_user_namespaces:
        yield Finding("user namespaces", "ok", "the embedded Postgres runs in one, not as root")
    else:
        yield Finding(
            "user namespaces",
            "note",
            "none: the embedded Postgres needs an ordinary user that can reach the data folder",
            "sysctl user.max_user_namespaces=1000, or run mlfleet as that user",
        )


def database(uri: str, settings: Settings) -> Iterator[Finding]:
    """Postgres answers, is new enough, has the template, and enough connections."""
    try:
        connection = connect(uri)
    except FleetError as exc:
        yield Finding("postgres", "problem", str(exc), "start it, or see `mlfleet logs --postgres`")
        return
    with contextlib.closing(connection):
        yield _version(connection)
        yield _template(connection)
    budget = connections.of_server(uri, settings)
    try:
        budget.check()
    except FleetError as exc:
        yield Finding("connections", "problem", str(exc), "see the message")
    else:
        yield Finding("connections", "ok", budget.arithmetic)


def _version(connection: Connection) -> Finding:
    major, minor = divmod(connection.server_version, 10000)
    text = f"Postgres {major}.{minor} answers"
    if major < OLDEST_POSTGRES:
        return Finding("postgres", "problem", text, f"upgrade to {OLDEST_POSTGRES} or later")
    return Finding("postgres", "ok", text)


def _template(connection: Connection) -> Finding:
    version = template.mlflow_version()
    name = template.template_name(version)
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if cursor.rowcount:
            return Finding("template", "ok", f"{name}, for MLflow {version}")
    return Finding(
        "template", "problem", f"{name} for MLflow {version} is missing", "mlfleet database prepare"
    )


def pooler(address: str | None) -> Iterator[Finding]:
    """PgBouncer, where one is set, takes connections."""
    if address is None:
        return
    host, _, number = address.rpartition(":")
    try:
        socket.create_connection((host, int(number)), timeout=5).close()
    except (OSError, ValueError) as exc:
        yield Finding(
            "pooler",
            "problem",
            f"{address}: {exc}",
            "start PgBouncer there, or change MLFLEET_POOLER_ADDRESS to HOST:PORT",
        )
    else:
        yield Finding(
            "pooler", "ok", f"{address} takes connections (pool_mode = transaction works)"
        )


def s3_tenants(names: Sequence[str], *, have_own_credentials: bool) -> Iterator[Finding]:
    """Tenants on S3 are only as confined as the credentials their processes hold."""
    if names and not have_own_credentials:
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        yield Finding(
            "s3",
            "note",
            f"unconfined: {shown} share one set of S3 credentials, which"
            " reaches every prefix of the bucket",
            "see docs/operations.md, S3",
        )


def program(prefixes: Iterable[str]) -> Iterator[Finding]:
    """As root, the program must be readable for the tenants' uids."""
    if os.geteuid() != 0:
        return
    for path in {part for prefix in prefixes for part in (Path(prefix), *Path(prefix).parents)}:
        if not path.stat().st_mode & 0o001:
            yield Finding(
                "program",
                "note",
                f"{path} is closed to other users, so tenants' processes share this user",
                f"chmod o+x {path}, or use a Python that lies elsewhere",
            )
