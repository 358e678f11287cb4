"""One tenant's instance as the gateway sees it: a control socket and a pool of connections.

Whether a process lives is told by its control socket alone: it closes with the process, whoever the
parent is by then. A connection is a socket pair whose other end was passed over that socket, so it
may carry a request before the instance is up: the bytes wait in the socket.
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from mlfleet.cell import protocol
from mlfleet.cell.upstream import LostError, Upstream, connect

CONTROL_WAIT_S = 10.0
"""An instance that leaves its control socket full for this long is stuck."""
POOL_IDLE_S = 10.0
"""A connection that nobody used for this long is closed; one is kept."""
GROWN_BYTES = 1048576
"""What an instance's resident size has to change by before its memory is counted again at once."""
COUNTED_S = 60.0
"""Counted again after this long all the same: a page that is no longer shared changes no size."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Instance:
    """A forked process that serves one tenant."""

    def __init__(self, tenant: str, control: socket.socket, on_gone: "Callable[[Instance], None]"):
        self.tenant = tenant
        self.pid = 0
        self.identity = (0, 0)
        self.in_flight = 0
        self.last_used = time.monotonic()
        self.born = self.last_used
        self.ready_s: float | None = None
        self.memory: dict[str, int] = {}
        self.is_leaving = False
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        self._on_gone = on_gone
        self._control = control
        self._idle: list[tuple[Upstream, float]] = []
        self._counted = (0, -math.inf)
        """Resident bytes at the last count, and when that was."""
        control.setblocking(False)
        asyncio.get_running_loop().add_reader(control.fileno(), self._on_packet)

    @property
    def state(self) -> str:
        """One word for people: waking, awake, draining or gone."""
        if self.gone.is_set():
            return "gone"
        if self.is_leaving:
            return "draining"
        return "awake" if self.ready.is_set() else "waking"

    @property
    def is_usable(self) -> bool:
        """True if new requests may be sent to it."""
        return not self.is_leaving and not self.gone.is_set()

    def woke_in_s(self, wished_at: float) -> float:
        """Return how long somebody who wished for it at that time waited until it was ready."""
        # Its first answer may be read before the packet that says "ready", which came first.
        ready_at = time.monotonic() if self.ready_s is None else self.born + self.ready_s
        return max(0.0, ready_at - wished_at)

    async def connection(self) -> Upstream:
        """Return a connection that nobody else uses.

        Raises:
            LostError: the instance is gone.
        """
        while self._idle:
            upstream, _ = self._idle.pop()
            if not upstream.is_lost:
                return upstream
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with theirs:
                await self._send(protocol.CONNECT, [theirs.fileno()])
            ours.setblocking(False)
            return await connect(ours)
        except BaseException:
            ours.close()
            raise

    def give_back(self, upstream: Upstream) -> None:
        """Keep a connection for the next request if it can take one."""
        if upstream.is_reusable and self.is_usable:
            self._idle.append((upstream, time.monotonic()))
        else:
            upstream.close()

    async def configure(self, packet: bytes) -> None:
        """Send the configuration, the first packet of all."""
        await self._send(packet, [])

    async def ask_memory(self) -> None:
        """Ask for the memory figures, which come into `memory`, if they can have changed much.

        The kernel counts them page by page, for 2 to 4 ms, while the resident size is at hand.
        """
        resident, now = _resident_bytes(self.pid), time.monotonic()
        before, counted = self._counted
        if abs(resident - before) >= GROWN_BYTES or now - counted >= COUNTED_S:
            self._counted = (resident, now)
            await self._send(protocol.MEMORY, [])

    async def sleep(self) -> None:
        """Tell it to finish what is in flight and end; no new request may be sent from now on."""
        self.is_leaving = True
        self._drop_pool(keep=0)
        with contextlib.suppress(LostError):
            await self._send(protocol.SLEEP, [])

    def abandon(self) -> None:
        """Let go of an instance that did not come about; what was forked of it ends by itself."""
        self.is_leaving = True
        if not self.gone.is_set():
            self._has_gone()

    def kill(self) -> None:
        """End the process at once, if it still lives."""
        if self.pid and not self.gone.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close_idle(self, now: float) -> None:
        """Close connections that were not used for a while."""
        while len(self._idle) > 1 and now - self._idle[0][1] > POOL_IDLE_S:
            self._idle.pop(0)[0].close()

    @property
    def connections(self) -> int:
        """Connections that wait for a request, and those in use."""
        return len(self._idle) + self.in_flight

    def _drop_pool(self, keep: int) -> None:
        while len(self._idle) > keep:
            self._idle.pop()[0].close()

    async def _send(self, packet: bytes, descriptors: list[int]) -> None:
        deadline = time.monotonic() + CONTROL_WAIT_S
        while not self.gone.is_set():
            try:
                protocol.send_with_descriptors(self._control, packet, descriptors)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    message = "the instance does not read its control socket"
                    raise LostError(message, was_unread=True) from None
                await asyncio.sleep(0.005)
            except OSError as exc:
                raise LostError(f"the instance is gone ({exc})", was_unread=True) from exc
            else:
                return
        raise LostError("the instance is gone", was_unread=True)

    def _on_packet(self) -> None:
        try:
            packet = self._control.recv(protocol.PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._has_gone()
            return
        fields = json.loads(packet)
        if fields.get("ready"):
            self.ready_s = time.monotonic() - self.born
            self.ready.set()
        elif "memory" in fields:
            self.memory = fields["memory"]

    def _has_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self.gone.set()
        self._drop_pool(keep=0)
        self._on_gone(self)


def _resident_bytes(pid: int) -> int:
    """Return what a process has in memory; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0
