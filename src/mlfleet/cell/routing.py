"""Decide which tenant a request is for, from its Host header and its raw path.

Pure. The path is never decoded, normalised or joined: it is cut after the tenant's segment and the
rest travels on byte for byte. So `..`, `%2e%2e`, `%2f` and double slashes mean whatever the
tenant's own server makes of them, and can never lead to another tenant's. The host check is
MLflow's (DNS rebinding), moved in front: an instance only ever hears `localhost`.
"""

import dataclasses
import re
from typing import Protocol

from mlfleet.catalogue.names import RESERVED
from mlfleet.cell.answers import BadRequestError
from mlfleet.errors import ForbiddenError, UnknownTenantError

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answered by the gateway on every host, with any Host header, and never wake anybody."""

OWN_PREFIX = "/.mlfleet/"
"""Login and logout, on a tenant's own host; no path of MLflow's begins so."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])\Z")
_PORT = re.compile(r":[0-9]{1,5}\Z")


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes."""

    tenant: str
    """Empty for the gateway's own pages."""
    path: str
    """Raw path and query as the instance shall see them; begins with a slash."""
    prefix: str
    """What was cut off: `/<tenant>`, or nothing on the tenant's own host."""
    own_host: bool
    """True on the tenant's own host, where a browser session may be used."""


class HostCheck(Protocol):
    """Says which tenant's own host was called, and refuses a foreign one."""

    def tenant(self, host: str) -> str | None: ...


class Hosts:
    """The host names this fleet answers to."""

    def __init__(self, public_hosts: str) -> None:
        self._names = frozenset(h.strip().lower() for h in public_hosts.split(",") if h.strip())

    def tenant(self, host: str) -> str | None:
        """Return the tenant whose own host this is, or none for a host that all tenants share.

        Raises:
            ForbiddenError: not a name of this fleet.
        """
        name = _PORT.sub("", host).lower().removesuffix(".")
        if name in self._names:
            return None
        label, _, rest = name.partition(".")
        if rest in self._names and _NAME.match(label):
            return label
        raise ForbiddenError(
            f"Invalid Host header - possible DNS rebinding attack detected: {host[:100]!r} is not "
            "a host of this fleet; add it to MLFLEET_PUBLIC_HOSTS if it should be"
        )


def route(target: str, host: str, hosts: HostCheck) -> Route:
    """Return where the request with this raw target and Host header goes.

    Raises:
        BadRequestError: the target is no absolute path, or holds bytes outside ASCII.
        ForbiddenError: the host is not one of this fleet.
        UnknownTenantError: the first segment cannot be a tenant's name.
    """
    if not target.startswith("/"):
        raise BadRequestError("The request target must be a path that begins with /")
    if not target.isascii():
        raise BadRequestError(
            "The request target holds bytes that are not ASCII; percent-encode them"
        )
    path, _, _ = target.partition("?")
    if path in PROBES:
        return Route("", target, "", False)
    if tenant := hosts.tenant(host):
        return Route(tenant, target, "", True)
    if path == "/":
        return Route("", target, "", False)
    name = path[1:].split("/", 1)[0]
    if not _NAME.match(name) or name in RESERVED:
        raise UnknownTenantError(
            f"No tenant {name[:80]!r} here: addresses of this fleet begin with /<tenant>/ "
            "(MLFLOW_TRACKING_URI is http://HOST/<tenant>)"
        )
    return Route(name, target[len(name) + 1 :], "/" + name, False)


def rewrite_location(location: str, prefix: str) -> str:
    """Return a Location header of an instance as the outside must see it."""
    for own in ("http://localhost/", "https://localhost/"):
        if location.startswith(own):
            location = location[len(own) - 1 :]
    return prefix + location if location.startswith("/") else location
