"""How the outside sees a request, whatever stands between a client and the gateway.

Pure.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Outside:
    """By which host, over which scheme and from which address a request came."""

    host: str
    """As the client wrote it, with its port."""
    scheme: str
    client: str
    """The client's address."""
