"""Tell where a request came from: from the outside, or from another cell that hands it over.

Pure: headers and the peer's address come in.
"""

from typing import NamedTuple

from multidict import CIMultiDictProxy

from mlfleet.cell import handover
from mlfleet.cell.outside import Ingress, Outside
from mlfleet.cell.routing import HostCheck, Hosts


class Arrival(NamedTuple):
    """How a request came in."""

    outside: Outside
    hosts: HostCheck
    by: str = ""
    """The cell that handed it over; empty if it came from the outside."""


class Entrance:
    """Knows what the outside is called, who the ingress is, and the seal of the fleet's cells."""

    def __init__(
        self, cell: str, hosts: Hosts, scheme: str, ingress: Ingress, handover_key: str
    ) -> None:
        self.cell = cell
        self._scheme = scheme
        self._hosts = hosts
        self._ingress = ingress
        self._handover_key = handover_key

    def arrival(self, headers: CIMultiDictProxy[str], host: str, peer: str) -> Arrival:
        """Return how the request with these headers came.

        Raises:
            ForbiddenError: it claims falsely to come from a cell.
        """
        if (sealed := headers.get(handover.HEADER)) is not None:
            papers = handover.unseal(sealed, self._handover_key, self.cell)
            return Arrival(papers.outside, papers, papers.by)
        if not self._ingress.is_named:
            return Arrival(Outside(host, self._scheme, peer), self._hosts)
        outside = self._ingress.outside(
            host,
            self._scheme,
            peer,
            headers.getall("X-Forwarded-For", ()),
            headers.get("X-Forwarded-Proto", ""),
        )
        return Arrival(outside, self._hosts)
