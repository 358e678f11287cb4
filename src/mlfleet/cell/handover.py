"""What one cell tells another of a request that it hands over, signed with the fleet's key.

Pure. A tenant that moved keeps its old address: the gateway there passes its requests on to the
cell that it lives in now. By what name the outside called, and who called, would be lost on that
way, so it travels in one header that only a cell can have written. Whatever carries the header is
never handed on again, so no request goes in circles.
"""

import base64
import dataclasses
import hmac
import json

from mlfleet.cell.outside import Outside
from mlfleet.errors import ForbiddenError

HEADER = "X-Mlfleet-Handover"
ANSWERED_BY = "x-mlfleet-cell"
"""Header by which a cell's answer is told from one of the proxies before it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Handover:
    """One request's papers."""

    by: str
    """The cell that hands it over, after it has checked host, token and origin."""
    to: str
    """The only cell that may take it."""
    own_host: str
    """The tenant if the request came to the tenant's own host, else empty."""
    outside: Outside

    def tenant(self, host: str) -> str | None:
        """Return the tenant whose own host was called: what `Hosts.tenant` said at the first cell.

        The Host header names the second cell by its address inside the cluster, so it says nothing.
        """
        return self.own_host or None


def seal(handover: Handover, key: str) -> str:
    """Return the header's value."""
    payload = base64.urlsafe_b64encode(json.dumps(_fields(handover)).encode()).decode()
    return f"{payload}.{_sign(payload, key)}"


def unseal(value: str, key: str, cell: str) -> Handover:
    """Return what a header says.

    Raises:
        ForbiddenError: it was not written by a cell of this fleet, or for another cell.
    """
    payload, _, signature = value.rpartition(".")
    if not hmac.compare_digest(signature.encode("utf-8", "replace"), _sign(payload, key).encode()):
        raise ForbiddenError(
            f"{HEADER} is for the cells of this fleet to write, and for no one else"
        )
    fields = json.loads(base64.urlsafe_b64decode(payload))
    if fields["to"] != cell:
        raise ForbiddenError(f"This request was handed over to cell {fields['to']!r}, not {cell!r}")
    return Handover(**fields | {"outside": Outside(*fields["outside"])})


def _fields(handover: Handover) -> dict[str, object]:
    return dataclasses.asdict(handover) | {"outside": list(handover.outside)}


def _sign(payload: str, key: str) -> str:
    return hmac.digest(key.encode(), payload.encode("utf-8", "replace"), "sha256").hex()
