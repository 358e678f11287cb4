"""The process that imported and warmed MLflow once, and forks a tenant's instance in milliseconds.

Started by the gateway with a clean environment. It never holds a secret: a tenant's configuration
goes from the gateway straight to the instance. Single-threaded and blocking, since a thread that
exists at a fork can leave a lock held for ever in the child. Orders come as packets on an inherited
socket (see `protocol`); when that socket closes the gateway is gone, and so is the zygote's reason.
"""

import contextlib
import gc
import logging
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mlfleet import log as fleet_log
from mlfleet.cell import confinement, heap, instance, protocol, scratch
from mlfleet.cell.protocol import ForkOrder, InstanceConfig, WarmOrder, decode_order
from mlfleet.cell.wsgi import ASGIApp

log = logging.getLogger(__name__)


class Zygote:
    """Forks instances and tells the gateway of their ends."""

    def __init__(self, orders: socket.socket, build: Callable[[InstanceConfig], ASGIApp]) -> None:
        self.orders = orders
        self.build = build
        self.folders: dict[int, str] = {}
        """Process number to the instance's private folder for temporary files."""

    def run(self) -> None:
        """Obey until the gateway is gone."""
        wake, notify = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(notify)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        while True:
            ready, _, _ = select.select([self.orders.fileno(), wake], [], [])
            if wake in ready:
                os.read(wake, 4096)
            self.reap()
            if self.orders.fileno() in ready and not self.obey():
                return

    def obey(self) -> bool:
        """Carry out one order; False when the gateway is gone."""
        packet, descriptors = protocol.receive(self.orders)
        if not packet:
            return False
        order = decode_order(packet)
        assert isinstance(order, ForkOrder)
        try:
            pid = self.fork(order, *descriptors)
        except OSError as exc:
            self.tell(failed=order.tenant, error=str(exc))
        else:
            self.tell(forked=order.tenant, pid=pid)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def fork(self, order: ForkOrder, control: int, log_file: int) -> int:
        """Fork one instance and return its process number."""
        folder = scratch.make(order.uid)
        pid = os.fork()
        if pid == 0:
            self.become(order, folder, control, log_file)
        self.folders[pid] = folder
        return pid

    def become(self, order: ForkOrder, folder: str, control: int, log_file: int) -> NoReturn:
        """Leave the zygote behind, in the child."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        instance.run(order, Path(folder), control, log_file, self.build)

    def reap(self) -> None:
        """Collect ended instances and report each."""
        while self.folders:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            shutil.rmtree(self.folders.pop(pid), ignore_errors=True)
            self.tell(exited=pid, status=status)

    def tell(self, **message: Any) -> None:
        """Send a message; a gateway that is gone is noticed at the next order."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            protocol.send(self.orders, **message)

    def finish(self, within_s: float) -> None:
        """See the last instances out: they drain when the gateway is gone, or are killed."""
        deadline = time.monotonic() + within_s
        while self.folders and time.monotonic() < deadline:
            self.reap()
            time.sleep(0.02)
        for pid in self.folders:
            log.warning("instance_killed", extra={"instance": pid})
            os.kill(pid, signal.SIGKILL)
        while self.folders:
            self.reap()
            time.sleep(0.02)


def main() -> None:
    """Warm MLflow, then fork until the gateway is gone."""
    started = time.monotonic()
    gc.disable()
    fleet_log.configure()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders = socket.socket(fileno=int(sys.argv[1]))
    os.set_inheritable(orders.fileno(), False)
    from mlfleet.cell import warming

    packet, _ = protocol.receive(orders)
    if not packet:
        return
    order = decode_order(packet)
    assert isinstance(order, WarmOrder)
    build = warming.warm(order.database)
    limits = confinement.limits(order.has_own_users)
    scratch.sweep()
    heap.renew_interned()
    gc.collect()
    gc.freeze()
    heap.fill_holes()
    protocol.send(orders, ready=True, warm_s=round(time.monotonic() - started, 3), limits=limits)
    zygote = Zygote(orders, build)
    zygote.run()
    zygote.finish(within_s=instance.DRAIN_S + 1)


if __name__ == "__main__":
    main()
