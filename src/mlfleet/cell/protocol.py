"""The messages between gateway, zygote and instance: small JSON packets, descriptors beside them.

All run over SOCK_SEQPACKET socket pairs, so one message is one packet. Secrets travel only from
the gateway straight to an instance (`InstanceConfig`), never through the zygote: whatever the
zygote has once read could be found in the memory of every tenant forked later.
"""

import dataclasses
import json
import socket
from typing import Any, Self

from mlfleet.database.access import DatabaseAccess

PACKET_BYTES = 65536
CONNECT = b"c"
"""Gateway to instance: one descriptor comes along, a new HTTP connection."""
SLEEP = b"s"
"""Gateway to instance: finish what is in flight, then exit."""
MEMORY = b"m"
"""Gateway to instance: answer with your memory."""


@dataclasses.dataclass(frozen=True)
class InstanceConfig:
    """Everything one tenant's instance needs, and nothing of any other tenant."""

    tenant: str
    database: DatabaseAccess
    artifact_root: str
    """An absolute folder, or an s3:// URI that ends in the tenant's own prefix."""
    kek_passphrase: str = dataclasses.field(repr=False)
    """What MLflow encrypts its stored secrets with."""
    memory_bytes: int
    """Private memory this instance may use above what it shares with the zygote."""
    artifact_bytes: int
    """Most bytes under the artifact root; 0 means no limit."""
    database_idle_s: float
    database_wait_s: float
    s3_environment: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def encode(self) -> bytes:
        """Return the packet that carries this configuration."""
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def decode(cls, packet: bytes) -> Self:
        """Return the configuration in a packet."""
        fields: dict[str, Any] = json.loads(packet)
        return cls(**{**fields, "database": DatabaseAccess(**fields["database"])})


@dataclasses.dataclass(frozen=True)
class ForkOrder:
    """Gateway to zygote, with two descriptors: the control socket and the tenant's log file."""

    tenant: str
    uid: int | None = None
    """User (and group) the instance runs as; only root may set one."""

    def encode(self) -> bytes:
        """Return the packet that carries this order."""
        return json.dumps({"fork": self.tenant, "uid": self.uid}).encode()


@dataclasses.dataclass(frozen=True)
class WarmOrder:
    """The first packet from gateway to zygote: where MLflow may be warmed with real requests."""

    database: DatabaseAccess
    """A throw-away copy of the template; the zygote is done with it once it says ready."""
    has_own_users: bool = False
    """Whether fork orders will name a user, for the list of what this cell cannot give."""

    def encode(self) -> bytes:
        """Return the packet that carries this order."""
        fields = {"warm": dataclasses.asdict(self.database), "own_users": self.has_own_users}
        return json.dumps(fields).encode()


def decode_order(packet: bytes) -> ForkOrder | WarmOrder:
    """Return what the gateway asks of the zygote."""
    fields: dict[str, Any] = json.loads(packet)
    if "warm" in fields:
        return WarmOrder(DatabaseAccess(**fields["warm"]), fields["own_users"])
    return ForkOrder(fields["fork"], fields["uid"])


def send(sock: socket.socket, **fields: object) -> None:
    """Send one JSON packet."""
    sock.sendall(json.dumps(fields).encode())


def send_with_descriptors(sock: socket.socket, packet: bytes, descriptors: list[int]) -> None:
    """Send one packet that carries descriptors; the sender still owns (and closes) its own."""
    socket.send_fds(sock, [packet], descriptors)


def receive(sock: socket.socket, descriptors: int = 2) -> tuple[bytes, list[int]]:
    """Return the next packet and its descriptors (close-on-exec); an empty packet means the end."""
    try:
        packet, received, _, _ = socket.recv_fds(
            sock, PACKET_BYTES, descriptors, socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        # The other side ended with packets of ours unread.
        return b"", []
    return packet, received
