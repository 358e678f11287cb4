"""The gateway's side of one instance."""

import os
import socket

from mlfleet.cell import protocol
from mlfleet.cell.instances import COUNTED_S, Instance


async def test_memory_is_counted_again_when_it_can_have_changed() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    instance = Instance("demo", ours, lambda _: None)
    instance.pid = os.getpid()

    async def is_asked() -> bool:
        await instance.ask_memory()
        try:
            return theirs.recv(protocol.PACKET_BYTES) == protocol.MEMORY
        except BlockingIOError:
            return False

    assert await is_asked()
    assert not await is_asked()
    grown = b"x" * 32 * 1048576
    assert await is_asked()
    assert not await is_asked()
    resident, counted = instance._counted
    instance._counted = (resident, counted - COUNTED_S)
    assert await is_asked()
    assert len(grown) and not await is_asked()
    theirs.close()
