"""How the outside sees a request, whatever stands between a client and the gateway.

Pure. Forwarding headers are claims. The gateway believes those of an ingress that is named by its
address, and finds that address where only a proxy of ours can have written it: each proxy appends
its peer to X-Forwarded-For, so from the right stand the proxies behind the ingress (on Knative the
activator and the queue-proxy), then the ingress, then its client. Further left is hearsay.
"""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple

from mlfleet.errors import FleetError

SCHEMES = frozenset({"http", "https"})


class Outside(NamedTuple):
    """By which host, over which scheme and from which address a request came."""

    host: str
    """As the client wrote it, with its port."""
    scheme: str
    client: str
    """The client's address."""


class Ingress:
    """Who may say how the outside sees a request."""

    def __init__(self, networks: str, inner_hops: int) -> None:
        """Read the settings.

        Args:
            networks: addresses or networks of the ingress, comma separated; empty: believe nobody.
            inner_hops: proxies between ingress and gateway that append to X-Forwarded-For.

        Raises:
            FleetError: not an address or network.
        """
        parts = [part.strip() for part in networks.split(",") if part.strip()]
        try:
            self._networks = [ipaddress.ip_network(part) for part in parts]
        except ValueError as exc:
            raise FleetError(
                f"MLFLEET_TRUSTED_PROXIES={networks!r}: {exc}; write 10.0.0.7 or 10.42.0.0/16"
            ) from exc
        self._inner_hops = inner_hops
        self.is_named = bool(parts)

    def outside(
        self, host: str, scheme: str, peer: str, forwarded_for: Sequence[str], proto: str
    ) -> Outside:
        """Return how the outside sees a request.

        Args:
            scheme: what holds when no ingress says otherwise.
            peer: address of whoever opened the connection to the gateway.
            forwarded_for: all X-Forwarded-For headers, in their order.
            proto: the X-Forwarded-Proto header.
        """
        chain = [part.strip() for line in forwarded_for for part in line.split(",")]
        chain.append(peer)
        if len(chain) < self._inner_hops + 2 or not self._is_ingress(chain[-1 - self._inner_hops]):
            return Outside(host, scheme, peer)
        client = _address(chain[-2 - self._inner_hops])
        said = proto.strip().lower()
        return Outside(
            host, said if said in SCHEMES else scheme, peer if client is None else str(client)
        )

    def _is_ingress(self, text: str) -> bool:
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
