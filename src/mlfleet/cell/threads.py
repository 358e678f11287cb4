"""A small pool of threads that survives being set up before a fork.

The standard executor cannot be used again after its shutdown, and a fork must find no thread. Here
threads start when work waits for one, the one that was busy last is used first (so a quiet instance
touches one stack only), and `stop` leaves the pool as it was before its first work.
"""

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

_Work = tuple[Callable[..., Any], tuple[Any, ...], asyncio.AbstractEventLoop, asyncio.Future[Any]]
STACK_BYTES = 1024 * 1024
"""Address space of a thread's stack; it counts against the instance's memory limit when touched."""


class Threads:
    """Runs blocking functions for coroutines, at most `most` at once."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._queue: deque[_Work] = deque()
        self._idle: list[threading.Lock] = []
        self._all: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_stopping = False

    async def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what the function returns, or raise what it raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        with self._lock:
            self._queue.append((function, args, loop, future))
            if self._idle:
                self._idle.pop().release()
            elif len(self._all) < self.most:
                self._start()
        return await future

    def stop(self) -> None:
        """End all threads once their work is done; the next `run` starts anew."""
        with self._lock:
            self._is_stopping = True
            for bell in self._idle:
                bell.release()
            self._idle.clear()
        for thread in self._all:
            thread.join()
        self._all.clear()
        self._is_stopping = False

    def _start(self) -> None:
        before = threading.stack_size(STACK_BYTES)
        try:
            thread = threading.Thread(target=self._work, name="flask", daemon=True)
            thread.start()
        finally:
            threading.stack_size(before)
        self._all.append(thread)

    def _work(self) -> None:
        bell = threading.Lock()
        bell.acquire()
        while True:
            with self._lock:
                work = self._queue.popleft() if self._queue else None
                if work is None:
                    if self._is_stopping:
                        return
                    self._idle.append(bell)
            if work is None:
                bell.acquire()
            else:
                _perform(work)
                del work


def _perform(work: _Work) -> None:
    function, args, loop, future = work
    try:
        result = function(*args)
    except BaseException as exc:
        _report(loop, future, future.set_exception, exc)
    else:
        _report(loop, future, future.set_result, result)


def _report(
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Any],
    settle: Callable[[Any], None],
    value: Any,
) -> None:
    def settle_unless_cancelled() -> None:
        if not future.done():
            settle(value)

    # A closed loop: the process is ending and nobody waits any more.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(settle_unless_cancelled)
