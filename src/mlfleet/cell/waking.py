"""Wake instances, put them to sleep, and keep their number and memory in bounds.

The effects around `admission`'s decisions. Tenants that want to wake at the same time share one
wake per tenant; a client that leaves while it is held cancels only its own waiting.
"""

import asyncio
import contextlib
import dataclasses
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path

from mlfleet.cell import admission
from mlfleet.cell.admission import Awake, Evict, Full, Wake
from mlfleet.cell.instances import Instance
from mlfleet.cell.metrics import Metrics
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.upstream import LostError
from mlfleet.cell.zygote_link import ZygoteDiedError, ZygoteLink
from mlfleet.errors import DatabaseAwayError, NoCapacityError

log = logging.getLogger(__name__)

CRASH_PAUSE_S = (0.0, 0.5, 2.0, 8.0, 30.0)
"""Pause before a tenant's next wake, by how often its instance has died before it was ready."""
DATABASE_RETRY_S = 0.25
SLEEP_GRACE_S = 2.0
"""Given to an instance beyond its own drain deadline before it is killed."""


@dataclasses.dataclass(frozen=True)
class WakeSettings:
    """Bounds of waking and sleeping."""

    idle_s: float
    max_awake: int
    hold_s: float
    drain_s: float
    memory_poll_s: float


@dataclasses.dataclass(frozen=True)
class Birth:
    """What an instance is started with."""

    config: InstanceConfig
    log_file: Path
    uid: int | None
    """User the instance runs as, if this cell may choose."""
    identity: tuple[int, int]
    """The tenant's id and the generation of its password: with others, the instance is outdated."""


Provide = Callable[[str], Awaitable[Birth]]
"""Make the tenant's database and folder if need be, and return what its instance needs."""


class Instances:
    """All instances of this cell."""

    def __init__(
        self, zygote: ZygoteLink, provide: Provide, settings: WakeSettings, metrics: Metrics
    ) -> None:
        self.zygote = zygote
        self._provide = provide
        self._settings = settings
        self._metrics = metrics
        self._awake: dict[str, Instance] = {}
        self._leaving: set[Instance] = set()
        self._wakes: dict[str, asyncio.Task[Instance]] = {}
        self._reserved: set[str] = set()
        self._held: Counter[str] = Counter()
        self._waiting = 0
        self._crashes: dict[str, tuple[int, float]] = {}
        self._memory_bytes: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._departure = asyncio.Event()
        self.wakes: dict[str, tuple[int, float]] = {}
        """Tenant to the number of its wakes and the seconds the last one took."""
        self.on_wake: Callable[[int], None] = lambda tenant_id: None
        """Told of each wake, by the tenant's id."""

    def get(self, tenant: str) -> Instance | None:
        """Return the tenant's instance if requests can be sent to it now."""
        instance = self._awake.get(tenant)
        return instance if instance is not None and instance.is_usable else None

    def everyone(self) -> list[Instance]:
        """Return every instance that has a process, those on their way to sleep too."""
        return [*self._awake.values(), *self._leaving]

    @property
    def hold_s(self) -> float:
        """Longest time a wake may take."""
        return self._settings.hold_s

    def forget(self, tenant: str) -> None:
        """Drop what is remembered of a tenant that is no more."""
        for memory in (self.wakes, self._crashes, self._memory_bytes):
            memory.pop(tenant, None)

    async def wake(self, tenant: str) -> Instance:
        """Return the tenant's instance, waking it if it sleeps; it may not be ready yet.

        Raises:
            NoCapacityError: no place, or no success within the holding time.
            DatabaseAwayError: Postgres could not be reached within the holding time.
        """
        if (instance := self.get(tenant)) is not None:
            return instance
        task = self._wakes.get(tenant)
        if task is None:
            task = asyncio.create_task(self._wake(tenant), name=f"wake {tenant}")
            self._wakes[tenant] = task
            task.add_done_callback(lambda done: self._wake_is_over(tenant, done))
        # Counted, so that nobody evicts an instance between its wake and the first request.
        self._held[tenant] += 1
        self._metrics.held.inc()
        try:
            return await asyncio.shield(task)
        finally:
            self._metrics.held.dec()
            self._held[tenant] -= 1
            if not self._held[tenant]:
                del self._held[tenant]

    def refresh(self, tenant: str, identity: tuple[int, int], memory_bytes: int) -> None:
        """Take over what has changed of a tenant; an outdated instance is put to sleep."""
        if (instance := self._awake.get(tenant)) is not None:
            self._memory_bytes[tenant] = memory_bytes
            if instance.identity != identity:
                self._leave(instance, "outdated")

    def begin_sleep(self, tenant: str) -> list[Instance]:
        """Let the tenant's instance drain and end; return those still on their way."""
        if (instance := self._awake.get(tenant)) is not None:
            self._leave(instance, "asked")
        return [one for one in self._leaving if one.tenant == tenant]

    async def put_to_sleep(self, tenant: str) -> bool:
        """Drain and end the tenant's instance; returns when it is gone, False if none was awake."""
        leaving = self.begin_sleep(tenant)
        for instance in leaving:
            await instance.gone.wait()
        return bool(leaving)

    async def run(self) -> None:
        """Reap the idle and watch memory until cancelled."""
        next_poll = time.monotonic() + self._settings.memory_poll_s
        while True:
            await asyncio.sleep(min(1.0, self._settings.idle_s / 4))
            now = time.monotonic()
            for name in admission.idle_tenants(self._census(), now, self._settings.idle_s):
                if name in self._awake:
                    self._leave(self._awake[name], "idle")
            for instance in self._awake.values():
                instance.close_idle(now)
            if now >= next_poll:
                next_poll = now + self._settings.memory_poll_s
                await self._watch_memory()

    async def close(self, wait_s: float) -> None:
        """Stop waking, and drain every instance; kill what is not gone after `wait_s`."""
        for task in self._wakes.values():
            task.cancel()
        for instance in list(self._awake.values()):
            self._leave(instance, "shutdown")
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=wait_s)
        for instance in self.everyone():
            log.warning("instance_killed", extra={"tenant": instance.tenant, "pid": instance.pid})
            instance.kill()

    # Waking.

    async def _wake(self, tenant: str) -> Instance:
        started = time.monotonic()
        self._refuse_crash_loop(tenant, started)
        try:
            async with asyncio.timeout(self._settings.hold_s):
                await self._take_place(tenant)
                birth = await self._provided(tenant)
                while True:
                    try:
                        return await self._start(tenant, birth, started)
                    except ZygoteDiedError as exc:
                        log.warning("fork_again", extra={"tenant": tenant, "reason": str(exc)})
        except TimeoutError as exc:
            self._metrics.wake_failures.inc()
            raise NoCapacityError(
                f"Tenant {tenant!r} did not wake within {self._settings.hold_s:g} s; try again"
            ) from exc
        finally:
            self._reserved.discard(tenant)

    def _wake_is_over(self, tenant: str, task: "asyncio.Task[Instance]") -> None:
        del self._wakes[tenant]
        if not task.cancelled() and (exc := task.exception()):
            # Said here as well: everybody who waited may have left.
            log.warning("wake_failed", extra={"tenant": tenant, "reason": str(exc)})

    def _refuse_crash_loop(self, tenant: str, now: float) -> None:
        crashes, until = self._crashes.get(tenant, (0, 0.0))
        if now < until:
            raise NoCapacityError(
                f"The instance of {tenant!r} ended {crashes} times before it was ready; "
                f"`mlfleet logs {tenant}` says why. The next try is in {until - now:.0f} s"
            )

    async def _take_place(self, tenant: str) -> None:
        while True:
            decision = admission.admit(
                self._census(), self._settings.max_awake - len(self._reserved), self._waiting
            )
            match decision:
                case Wake():
                    self._reserved.add(tenant)
                    return
                case Full():
                    raise NoCapacityError(
                        f"All {self._settings.max_awake} places of this cell are taken by tenants "
                        "at work; try again"
                    )
                case Evict(name):
                    self._leave(self._awake[name], "evicted")
            self._waiting += 1
            try:
                await self._departure.wait()
            finally:
                self._waiting -= 1

    async def _provided(self, tenant: str) -> Birth:
        deadline = time.monotonic() + self._settings.hold_s - DATABASE_RETRY_S * 2
        while True:
            try:
                return await self._provide(tenant)
            except DatabaseAwayError as exc:
                if time.monotonic() > deadline:
                    self._metrics.wake_failures.inc()
                    raise
                log.warning("database_away", extra={"tenant": tenant, "reason": str(exc)})
                await asyncio.sleep(DATABASE_RETRY_S)

    async def _start(self, tenant: str, birth: Birth, started: float) -> Instance:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        instance = Instance(tenant, ours, self._has_gone)
        log_file = os.open(birth.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            # Sent ahead: it waits in the socket until the fork reads it.
            await instance.configure(birth.config.encode())
            with theirs:
                instance.pid = await self.zygote.fork(tenant, birth.uid, theirs, log_file)
        except BaseException as exc:
            instance.abandon()
            if isinstance(exc, LostError):
                raise NoCapacityError(
                    f"The instance of {tenant!r} ended at once; try again"
                ) from exc
            raise
        finally:
            os.close(log_file)
        instance.born = started
        instance.identity = birth.identity
        self._memory_bytes[tenant] = birth.config.memory_bytes
        self._awake[tenant] = instance
        self._metrics.awake.set(len(self._awake) + len(self._leaving))
        self._own(self._watch_start(instance))
        return instance

    async def _watch_start(self, instance: Instance) -> None:
        """Count the wake when the instance is ready; kill what never gets ready."""
        ready = asyncio.create_task(instance.ready.wait())
        gone = asyncio.create_task(instance.gone.wait())
        await asyncio.wait(
            [ready, gone],
            timeout=self._settings.hold_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        ready.cancel()
        gone.cancel()
        if instance.ready_s is not None:
            self._crashes.pop(instance.tenant, None)
            count, _ = self.wakes.get(instance.tenant, (0, 0.0))
            self.wakes[instance.tenant] = (count + 1, instance.ready_s)
            self._metrics.wakes.inc()
            self.on_wake(instance.identity[0])
            self._metrics.wake_seconds.observe(instance.ready_s)
            with contextlib.suppress(LostError):
                await instance.ask_memory()
        elif not instance.gone.is_set():
            log.error("instance_stuck", extra={"tenant": instance.tenant, "pid": instance.pid})
            instance.kill()

    # Sleeping.

    def _leave(self, instance: Instance, reason: str) -> None:
        """Take no more requests for this instance, and see it out."""
        if self._awake.get(instance.tenant) is instance:
            del self._awake[instance.tenant]
        self._leaving.add(instance)
        instance.is_leaving = True
        log.debug("instance_sleeps", extra={"tenant": instance.tenant, "reason": reason})
        self._own(self._see_out(instance))

    async def _see_out(self, instance: Instance) -> None:
        await instance.sleep()
        try:
            async with asyncio.timeout(self._settings.drain_s + SLEEP_GRACE_S):
                await instance.gone.wait()
        except TimeoutError:
            log.warning("instance_killed", extra={"tenant": instance.tenant, "pid": instance.pid})
            instance.kill()
            await instance.gone.wait()

    def _has_gone(self, instance: Instance) -> None:
        """Told by the control socket that the process has ended."""
        if self._awake.get(instance.tenant) is instance:
            del self._awake[instance.tenant]
        self._leaving.discard(instance)
        self._metrics.awake.set(len(self._awake) + len(self._leaving))
        departure, self._departure = self._departure, asyncio.Event()
        departure.set()
        if not instance.is_leaving:
            self._has_crashed(instance)

    def _has_crashed(self, instance: Instance) -> None:
        self._metrics.crashes.inc()
        was_ready = instance.ready.is_set()
        # Killed, crashed, or out of memory: then it says so in its own log, and finishes by itself.
        log.log(
            logging.WARNING if was_ready else logging.ERROR,
            "instance_ended_unasked",
            extra={"tenant": instance.tenant, "pid": instance.pid, "was_ready": was_ready},
        )
        if not was_ready:
            crashes = self._crashes.get(instance.tenant, (0, 0.0))[0] + 1
            pause_s = CRASH_PAUSE_S[min(crashes - 1, len(CRASH_PAUSE_S) - 1)]
            self._crashes[instance.tenant] = (crashes, time.monotonic() + pause_s)

    async def _watch_memory(self) -> None:
        """Recycle instances whose last answer was over their quota, and ask all again."""
        for instance in list(self._awake.values()):
            used, quota = (
                instance.memory.get("private_bytes", 0),
                self._memory_bytes.get(instance.tenant, 0),
            )
            if quota and used > quota:
                log.warning(
                    "instance_over_memory",
                    extra={"tenant": instance.tenant, "private_bytes": used, "quota_bytes": quota},
                )
                self._leave(instance, "memory")
            elif instance.ready.is_set():
                try:
                    await instance.ask_memory()
                except LostError as exc:
                    log.warning(
                        "instance_unresponsive",
                        extra={"tenant": instance.tenant, "reason": str(exc)},
                    )

    def _census(self) -> list[Awake]:
        return [
            Awake(i.tenant, i.in_flight + self._held[i.tenant], i.last_used, i.is_leaving)
            for i in self.everyone()
        ]

    def _own(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()):
            log.error("instance_task_failed", exc_info=exc)
