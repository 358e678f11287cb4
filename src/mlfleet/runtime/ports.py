"""Choose ports: below 32768, where the kernel does not take them for outgoing connections."""

import socket

from mlfleet.errors import FleetError

POSTGRES_PORTS = range(25432, 25932)


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def choose(preferred: int | None, among: range = POSTGRES_PORTS) -> int:
    """Return a free loopback port: the preferred one if it is free, else the first of a range.

    Raises:
        FleetError: all are taken.
    """
    candidates = ([preferred] if preferred else []) + list(among)
    for port in candidates:
        if is_free("127.0.0.1", port):
            return port
    raise FleetError(
        f"Postgres finds no free port from {among[0]} to {among[-1]} on 127.0.0.1:"
        " end what uses them, or give your own Postgres in MLFLEET_ADMIN_URI"
    )
