"""A tenant's instance: what a forked zygote becomes.

It has no listening socket. The gateway hands it one end of a socket pair per connection, over the
control socket, so nobody else can connect. The order of a start: take the tenant's log as output,
read the configuration, give up every right (confinement), then load the tenant into MLflow. It
ends when the gateway says so (`SLEEP`), closes the control socket, or sends SIGTERM; each time it
finishes what is in flight, at most `DRAIN_S`.
"""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mlfleet.cell import protocol, scratch
from mlfleet.cell.confinement import confine
from mlfleet.cell.exhaustion import MemoryGuard
from mlfleet.cell.protocol import ForkOrder, InstanceConfig
from mlfleet.cell.wsgi import ASGIApp

log = logging.getLogger(__name__)

DRAIN_S = 25.0
"""Longest time to finish what is in flight; the gateway's own deadline is the same."""
NEVER_S = 10.0**7
"""Keep-alive never ends on this side: the gateway decides, so no request meets a closing socket."""


class Server:
    """Serves an ASGI application on connections that arrive as descriptors."""

    def __init__(self, app: ASGIApp, control: socket.socket) -> None:
        from uvicorn import Config
        from uvicorn.server import ServerState

        self.state = ServerState()
        self.config = Config(
            MemoryGuard(app, on_exhausted=self.retire),
            http="httptools",
            ws="none",
            loop="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(NEVER_S),
        )
        self.control = control
        self.stopping = asyncio.Event()
        self._accepting: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Serve until told to stop, then drain."""
        loop = asyncio.get_running_loop()
        self.control.setblocking(False)
        loop.set_exception_handler(self._on_exception)
        loop.add_reader(self.control.fileno(), self._on_packet)
        loop.add_signal_handler(signal.SIGTERM, self.stopping.set)
        await self.stopping.wait()
        await self._drain()

    def retire(self) -> None:
        """Tell the gateway to send nothing more (it sees the end of the socket), then drain."""
        if not self.stopping.is_set():
            asyncio.get_running_loop().remove_reader(self.control.fileno())
            self.control.shutdown(socket.SHUT_RDWR)
            self.stopping.set()

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        if isinstance(context.get("exception"), MemoryError):
            self.retire()

    def _on_packet(self) -> None:
        try:
            packet, descriptors = protocol.receive(self.control)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if packet == protocol.CONNECT:
            self.accept(socket.socket(fileno=descriptors[0]))
        elif packet == protocol.MEMORY:
            protocol.send(self.control, memory=memory_of("self"))
        elif packet in (protocol.SLEEP, b""):
            asyncio.get_running_loop().remove_reader(self.control.fileno())
            self.stopping.set()

    def accept(self, connection: socket.socket) -> None:
        """Serve HTTP on a connected socket."""
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

        loop = asyncio.get_running_loop()

        def make_protocol() -> asyncio.Protocol:
            return HttpToolsProtocol(self.config, self.state, {}, _loop=loop)

        connection.setblocking(False)
        task = loop.create_task(loop.connect_accepted_socket(make_protocol, connection))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _drain(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                if self._accepting:
                    await asyncio.wait(self._accepting)
                while self.state.connections or self.state.tasks:
                    for connection in list(self.state.connections):
                        # A request may have arrived that nobody has read yet.
                        if _unread_bytes(connection) == 0:
                            connection.shutdown()
                    await asyncio.sleep(0.01)
                return
        log.warning("drain_cut_off", extra={"requests": len(self.state.tasks)})


def _unread_bytes(connection: Any) -> int:
    fileno = connection.transport.get_extra_info("socket").fileno()
    if fileno < 0:
        return 0
    buffer = fcntl.ioctl(fileno, termios.FIONREAD, b"\0\0\0\0")
    return int(struct.unpack("i", buffer)[0])


def memory_of(process: str) -> dict[str, int]:
    """Return private and proportional memory of a process in bytes."""
    sizes: dict[str, int] = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, kib = line.split()[:2]
        sizes[name] = int(kib) * 1024
    return {
        "private_bytes": sizes["Private_Clean:"] + sizes["Private_Dirty:"],
        "proportional_bytes": sizes["Pss:"],
    }


Build = Callable[[InstanceConfig], ASGIApp]
"""Makes a tenant's application out of what the zygote has warmed."""


def run(order: ForkOrder, folder: Path, control: int, log_file: int, build: Build) -> NoReturn:
    """Be a tenant's instance, in a freshly forked process; never returns.

    Args:
        folder: for temporary files; the zygote removes it when the instance has ended.
        control: descriptor of the socket to the gateway.
        log_file: descriptor of the tenant's log.
    """
    status = 1
    try:
        _keep_only(control, log_file)
        scratch.hold(folder)
        tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        with socket.socket(fileno=control) as gateway:
            packet, _ = protocol.receive(gateway)
            if packet:
                config = InstanceConfig.decode(packet)
                confine(config, folder, order.uid)
                _serve(build(config), gateway)
        status = 0
    except BaseException:
        log.exception("instance_failed")
    finally:
        sys.stdout.flush()
        # No interpreter shutdown: it would touch (and copy) every page that is shared.
        os._exit(status)


def _keep_only(control: int, log_file: int) -> None:
    """Log to the tenant's file, and close every descriptor that came along with the fork."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, target in ((nothing, 0), (log_file, 1), (log_file, 2)):
        os.dup2(descriptor, target)
    os.closerange(3, control)
    os.closerange(control + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _serve(app: ASGIApp, control: socket.socket) -> None:
    import uvloop

    async def serve() -> None:
        server = Server(app, control)
        protocol.send(control, ready=True)
        await server.run()

    gc.enable()
    uvloop.run(serve())
