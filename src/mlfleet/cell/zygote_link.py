"""The gateway's side of the zygote: start it, order forks, start it again when it died.

Instances outlive their zygote: each hangs on its own control socket. So a dead zygote only means
that the next fork waits for a new one to warm up (about two seconds).
"""

import asyncio
import contextlib
import json
import logging
import math
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mlfleet.cell import protocol
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.protocol import ForkOrder, WarmOrder
from mlfleet.cell.zygote_process import ZygoteProcess
from mlfleet.database.access import DatabaseAccess
from mlfleet.errors import NoCapacityError

log = logging.getLogger(__name__)

RESTART_S = (0.1, 0.5, 2.0, 10.0)
"""Pauses between starts of a zygote that dies before it is warm; the last one repeats."""
END_S = 1.0
"""End of file on its socket tells a zygote to go; after this long it is killed."""

WarmDatabase = Callable[[], contextlib.AbstractAsyncContextManager[DatabaseAccess]]
"""Gives a throw-away database for as long as the zygote warms up."""


class ZygoteDiedError(NoCapacityError):
    """The zygote died before it answered an order; the next one will take it."""


class ZygoteLink:
    """Keeps one warm zygote and passes it fork orders."""

    def __init__(
        self,
        start: Callable[[], ZygoteProcess],
        warm_database: WarmDatabase,
        has_own_users: bool,
        metrics: Metrics,
        first: ZygoteProcess | None = None,
    ) -> None:
        """Keep what is needed to start and warm zygotes.

        Args:
            first: a zygote that was started already, to begin with.
        """
        self._start = start
        self._first = first
        self._warm_database = warm_database
        self._has_own_users = has_own_users
        self._metrics = metrics
        self._orders: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._forks: deque[asyncio.Future[int]] = deque()
        self._is_warm = asyncio.Event()
        self._is_dead = asyncio.Event()
        self.limits: list[str] = []
        """What this kernel cannot give, in words."""

    @property
    def is_warm(self) -> bool:
        """True if forks are possible now."""
        return self._is_warm.is_set()

    @property
    def pid(self) -> int | None:
        """The zygote's process number."""
        return self._process.pid if self._process else None

    async def wait_warm(self) -> None:
        """Return when forks are possible."""
        await self._is_warm.wait()

    async def run(self) -> None:
        """Keep a zygote until cancelled."""
        failures = 0
        try:
            while True:
                was_warm = await self._live()
                failures = 0 if was_warm else failures + 1
                pause_s = RESTART_S[min(failures, len(RESTART_S) - 1)]
                log.error("zygote_died", extra={"was_warm": was_warm, "restart_s": pause_s})
                await asyncio.sleep(pause_s)
        finally:
            self._lose()
            if self._process is not None and not await _has_ended(self._process, END_S):
                self._process.kill()
                self._process.wait()

    async def fork(
        self, tenant: str, uid: int | None, control: socket.socket, log_file: int
    ) -> int:
        """Return the process number of a new instance for this tenant.

        Raises:
            ZygoteDiedError: order it again.
            NoCapacityError: the fork failed; try again later.
        """
        await self._is_warm.wait()
        assert self._orders is not None
        forked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        packet = ForkOrder(tenant, uid).encode()
        try:
            protocol.send_with_descriptors(self._orders, packet, [control.fileno(), log_file])
        except OSError as exc:
            self._lose()
            raise ZygoteDiedError(f"The zygote takes no orders ({exc}); try again") from exc
        self._forks.append(forked)
        # Shielded: answers come in the order of the orders, so each keeps its place in the queue.
        return await asyncio.shield(forked)

    async def _live(self) -> bool:
        """Start a zygote, and return whether it was warm when it has died."""
        self._is_dead.clear()
        born, self._first = self._first or self._start(), None
        self._process, orders = born.process, born.orders
        orders.setblocking(False)
        self._orders = orders
        self._metrics.zygote_starts.inc()
        loop = asyncio.get_running_loop()
        loop.add_reader(orders.fileno(), self._on_packet)
        warming = asyncio.create_task(self._warm(orders))
        warming.add_done_callback(self._is_warmed)
        try:
            await self._is_dead.wait()
        finally:
            warming.cancel()
            was_warm = self._is_warm.is_set()
            self._lose()
        # Without its socket it goes by itself.
        await _has_ended(self._process, math.inf)
        return was_warm

    async def _warm(self, orders: socket.socket) -> None:
        """Lend the zygote a database until it is warm."""
        async with self._warm_database() as database:
            orders.send(WarmOrder(database, self._has_own_users).encode())
            await self._is_warm.wait()

    def _is_warmed(self, warming: "asyncio.Task[None]") -> None:
        if not warming.cancelled() and (exc := warming.exception()):
            log.error("zygote_warming_failed", exc_info=exc)
            if not self._is_warm.is_set():
                self._is_dead.set()

    def _on_packet(self) -> None:
        assert self._orders is not None
        try:
            packet = self._orders.recv(protocol.PACKET_BYTES)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self._lose()
            return
        self._obey(json.loads(packet))

    def _obey(self, fields: dict[str, Any]) -> None:
        if fields.get("ready"):
            self.limits = list(fields.get("limits", ()))
            log.info("zygote_warm", extra={"warm_s": fields.get("warm_s"), "limits": self.limits})
            self._is_warm.set()
        elif "forked" in fields:
            self._answer(lambda fork: fork.set_result(int(fields["pid"])))
        elif "failed" in fields:
            log.error("fork_failed", extra={"tenant": fields["failed"], "reason": fields["error"]})
            failed = NoCapacityError(f"No process can be made ({fields['error']}); try again")
            self._answer(lambda fork: fork.set_exception(failed))

    def _answer(self, settle: Callable[["asyncio.Future[int]"], None]) -> None:
        fork = self._forks.popleft()
        if not fork.done():
            settle(fork)

    def _lose(self) -> None:
        self._is_warm.clear()
        self._is_dead.set()
        if self._orders is not None:
            asyncio.get_running_loop().remove_reader(self._orders.fileno())
            self._orders.close()
            self._orders = None
        while self._forks:
            died = ZygoteDiedError("The zygote died while it made this process; try again")
            self._answer(lambda fork, exc=died: fork.set_exception(exc))  # type: ignore[misc]


async def _has_ended(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    """Return whether the process ended within this time."""
    deadline = time.monotonic() + wait_s
    while process.poll() is None:
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(0.01)
    return True
