"""Tell where a request came from: from the outside, or from another cell that hands it over.

Pure: headers and the peer's address come in.
"""

import dataclasses
from collections.abc import Mapping

from mlfleet.cell import handover
from mlfleet.cell.outside import Outside
from mlfleet.cell.routing import HostCheck, Hosts


@dataclasses.dataclass(frozen=True, slots=True)
class Arrival:
    """How a request came in."""

    outside: Outside
    hosts: HostCheck
    by: str = ""
    """The cell that handed it over; empty if it came from the outside."""


class Entrance:
    """Knows what the outside is called, and the seal of the fleet's cells."""

    def __init__(self, cell: str, hosts: Hosts, scheme: str, handover_key: str) -> None:
        self.cell = cell
        self.scheme = scheme
        self._hosts = hosts
        self._handover_key = handover_key

    def arrival(self, headers: Mapping[str, str], host: str, peer: str) -> Arrival:
        """Return how the request with these headers came.

        Raises:
            ForbiddenError: it claims falsely to come from a cell.
        """
        if (sealed := headers.get(handover.HEADER)) is not None:
            papers = handover.unseal(sealed, self._handover_key, self.cell)
            return Arrival(papers.outside, papers, papers.by)
        return Arrival(Outside(host, self.scheme, peer), self._hosts)
