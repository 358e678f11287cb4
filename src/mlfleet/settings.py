"""Every tunable of mlfleet, with its unit, default and reason; nothing else reads the environment.

Each field is read from `MLFLEET_<FIELD>` in capitals. A value of the wrong form is refused with the
variable's name.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, get_args, get_type_hints

from mlfleet.errors import FleetError


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of one fleet; frozen, so that they can be handed around."""

    # Where things are
    data: Path = Path(".mlfleet")
    host: str = "127.0.0.1"
    port: int = 8080
    cell: str = "cell-0"
    admin_uri: str | None = None
    """Postgres as an administrator (CREATEDB and CREATEROLE); none means the embedded one."""
    max_connections: int | None = None
    """Connections the embedded Postgres allows; none means what the budget needs. Ignored with
    `admin_uri`, where the server says it itself."""
    catalogue_connections: int = 10
    """A cell's connections for the catalogue and for making tenants' databases."""
    pooler_address: str | None = None
    """HOST:PORT of a PgBouncer that instances connect through instead of Postgres itself."""
    public_hosts: str = "localhost,127.0.0.1"
    """Host names (comma separated) the fleet answers to; a tenant also has NAME.HOST for each."""
    cell_address: str | None = None
    """Where the fleet's cells are, for requests of tenants that live in another one: a URL with
    `{cell}` for the name, or NAME=URL,… for each. None: this cell serves every tenant itself."""

    # Sleeping and waking
    idle_s: float = 60.0
    """An instance without a request for this long is put to sleep."""
    max_awake: int = 200
    """Instances awake at once in this cell."""
    hold_s: float = 100.0
    """Longest wait for a waking instance or database; below the 120 s a client waits for a try."""
    drain_s: float = 25.0
    """Longest time to finish requests in flight on SIGTERM."""
    uid_base: int = 700_000_000
    """An instance runs as user `uid_base` + tenant id where the cell may set users (root, and a
    data folder that others may pass through); far above what systems and containers give out."""

    # Requests
    public_scheme: str = "http"
    """`https` where TLS ends in front of the fleet: cookies are then marked Secure."""
    trusted_proxies: str = ""
    """Addresses or networks (comma separated) of the ingress, whose X-Forwarded-For and -Proto are
    believed; those of anybody else are overwritten."""
    inner_hops: int = 0
    """Proxies between ingress and gateway that append to X-Forwarded-For; 2 on Knative."""
    max_body_bytes: int = 21474836480
    """Largest request body; a larger one is answered 413. 0 means no limit."""
    queue: int = 1000
    """Requests of one tenant that may wait beyond its concurrency; the next one is answered 429."""
    head_s: float = 10.0
    """How long the head of a request may take to arrive in full (slow-loris clients)."""
    keep_alive_s: float = 900.0
    """How long a client's connection may be idle; long, since an idle one costs a few kB."""
    client_idle_s: float = 60.0
    """How long a client may pause in the middle of sending a body."""
    session_s: float = 604800.0
    """How long a browser's login lasts; its token's revocation or expiry ends it sooner."""
    log_requests: bool = True
    """One line per request in the cell's log."""
    catalogue_poll_s: float = 1.0
    """How often the gateway asks for changes; a revoked token works for at most about this long."""
    memory_poll_s: float = 10.0
    """How often instances whose memory can have changed are asked for it."""

    # Database
    database_idle_s: float = 5.0
    """An instance gives its server connection back after this long without a statement, later if it
    wants it again and again."""
    database_wait_s: float = 20.0
    """How long a call waits for Postgres to come back before it answers 429."""

    # S3, for tenants whose artifacts are there
    s3_endpoint_url: str | None = None
    """Address of an S3 that is not Amazon's."""
    s3_region: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: str | None = dataclasses.field(default=None, repr=False)
    """One key for all S3 tenants, so inside S3 they are not confined against each other."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Return the settings that `MLFLEET_*` variables describe.

        Raises:
            FleetError: a variable has the wrong form.
        """
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable = f"MLFLEET_{field.name.upper()}"
            if (text := environ.get(variable)) is not None:
                values[field.name] = _parse(variable, text, hints[field.name])
        return cls(**values)

    def without_secrets(self) -> Self:
        """Return these settings without what must not be written down."""
        return dataclasses.replace(self, admin_uri=None, s3_secret_access_key=None)

    def to_environ(self) -> dict[str, str]:
        """Return the variables from which `from_environ` makes these settings again."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {f"MLFLEET_{name.upper()}": str(v) for name, v in values.items() if v is not None}


def _parse(variable: str, text: str, kind: Any) -> Any:
    kinds = set(get_args(kind) or (kind,)) - {type(None)}
    if bool in kinds:
        return _truth(variable, text)
    convert = next((known for known in (int, float, Path) if known in kinds), str)
    try:
        return convert(text)
    except ValueError as exc:
        form = {int: "a whole number", float: "a number"}.get(convert, "text")
        raise FleetError(f"{variable}={text!r} is not {form}: change or unset it") from exc


def _truth(variable: str, text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if (value := words.get(text.strip().lower())) is None:
        raise FleetError(f"{variable}={text!r} is neither true nor false: change or unset it")
    return value
