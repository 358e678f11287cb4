"""Which names a tenant may have: DNS labels, never cut and never changed.

A name is part of every address: the first part of a path and a label of a host name. It may
therefore be neither something that DNS refuses nor something the gateway answers itself.
"""

import re
from typing import NewType

from mlfleet.errors import InvalidNameError

TenantName = NewType("TenantName", str)

RESERVED = frozenset(
    {
        # answered by the gateway itself
        "healthz", "readyz", "livez", "metrics", "login", "logout", "static", "admin", "status",
        # the first parts of a stock server's own paths: a client whose address lacks the tenant
        "api", "ajax-api", "graphql", "health", "version", "v1", "get-artifact", "static-files",
        "model-versions", "gateway", "mlflow", "docs", "oauth", "assets", "robots",
        # host names that mean the fleet, not a tenant
        "www", "localhost", "mlfleet", "internal",
    }
)  # fmt: skip
"""Names that no tenant may have; the gateway routes them before it looks for a tenant."""

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_TOKEN_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@-]{0,62})")


def tenant_name(text: str) -> TenantName:
    """Return the text as a tenant's name.

    Raises:
        InvalidNameError: with the one rule that the text breaks.
    """
    shown = repr(text if len(text) <= 80 else text[:77] + "…")
    if not 2 <= len(text) <= 63:
        raise InvalidNameError(f"tenant name {shown} has {len(text)} characters: use 2 to 63")
    if not _LABEL.fullmatch(text):
        raise InvalidNameError(
            f"tenant name {shown} is not a DNS label: use a-z, 0-9 and -, "
            "with a letter or digit first and last"
        )
    if text[2:4] == "--":
        raise InvalidNameError(
            f"tenant name {shown} has -- in third place, which DNS keeps for names like xn--…"
        )
    if text in RESERVED:
        raise InvalidNameError(f"tenant name {shown} is reserved for the fleet: choose another")
    return TenantName(text)


def label(text: str, what: str) -> str:
    """Return the text as the name of a cell or a token (`what`), or raise InvalidNameError."""
    if not _TOKEN_NAME.fullmatch(text):
        raise InvalidNameError(
            f"{what} name {text[:80]!r}: use 1 to 63 of letters, digits and . _ @ -, "
            "a letter or digit first"
        )
    return text
