"""An instance without its gateway, to tell what the gateway adds to a request.

It is forked from a zygote of its own and gets its connection as a gateway would pass it; only
then the requests come straight from the measuring client.
"""

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlfleet.cell import protocol, zygote_process
from mlfleet.database.access import DatabaseAccess

WAIT_S = 60.0


@contextlib.contextmanager
def connected(database: DatabaseAccess, folder: Path) -> Iterator[socket.socket]:
    """Run zygote and instance and yield an HTTP connection to the instance.

    Args:
        database: a copy of the fleet's template that nobody else uses.
        folder: where the instance may keep artifacts and its log.
    """
    artifacts = folder / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        orders, theirs = _pair(socket.SOCK_SEQPACKET, stack)
        with (folder / "zygote.log").open("ab") as log:
            process = subprocess.Popen(
                zygote_process.command(theirs.fileno()),
                env=zygote_process.environment(),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        stack.callback(process.wait)
        stack.callback(orders.close)  # the zygote exits when its socket closes
        theirs.close()
        orders.sendall(protocol.WarmOrder(database).encode())
        _expect(orders, "ready")
        control, instance_control = _pair(socket.SOCK_SEQPACKET, stack)
        log_file = os.open(folder / "instance.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        descriptors = [instance_control.fileno(), log_file]
        order = protocol.ForkOrder("direct").encode()
        protocol.send_with_descriptors(orders, order, descriptors)
        os.close(log_file)
        instance_control.close()
        control.sendall(_config(database, artifacts).encode())
        ours, instance_end = _pair(socket.SOCK_STREAM, stack)
        protocol.send_with_descriptors(control, protocol.CONNECT, [instance_end.fileno()])
        instance_end.close()
        _expect(control, "ready")
        yield ours
        control.sendall(protocol.SLEEP)


def _pair(
    kind: socket.SocketKind, stack: contextlib.ExitStack
) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.settimeout(WAIT_S)
    stack.callback(theirs.close)
    stack.callback(ours.close)
    return ours, theirs


def _expect(sock: socket.socket, field: str) -> dict[str, Any]:
    while True:
        packet, _ = protocol.receive(sock)
        if not packet:
            raise RuntimeError(f"the other side ended before it said {field!r}")
        message: dict[str, Any] = json.loads(packet)
        if field in message:
            return message


def _config(database: DatabaseAccess, artifacts: Path) -> protocol.InstanceConfig:
    return protocol.InstanceConfig(
        tenant="direct",
        database=database,
        artifact_root=str(artifacts),
        kek_passphrase="only for a benchmark",
        memory_bytes=1 << 30,
        artifact_bytes=0,
        database_idle_s=60,
        database_wait_s=20,
    )
