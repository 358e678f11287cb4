"""The messages between gateway, zygote and instance: small JSON packets, descriptors beside them.

All run over SOCK_SEQPACKET socket pairs, so one message is one packet. Secrets travel only from
the gateway straight to an instance (`InstanceConfig`), never through the zygote: whatever the
zygote has once read could be found in the memory of every tenant forked later.
"""

import dataclasses
import json
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
