"""Load by closed-loop clients: each sends its next request when the last is answered.

Python clients of MLflow cost more CPU than the server they call, so requests are ready-made bytes
over keep-alive sockets, and of an answer only status and length are read. Clock: this process'.
`ceiling.py` measures how much the generator itself can do.
"""

import array
import asyncio
import collections
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import cast

import uvloop

ANSWER_S = 120.0
"""Longest wait for one answer: the patience of a stock client for one try."""
LOST = 0
"""Stands for the status of a request whose connection was lost or that was never answered."""


@dataclasses.dataclass(frozen=True)
class Load:
    """What one run of load saw; latencies only of answers inside the measured window."""

    seconds: float
    latencies: Sequence[float]
    statuses: dict[int, int]
    """Answers of the whole run by status, warm-up and the last in flight included."""
    answers: Sequence[Sequence[int]]
    """Per stream, the status of each of its requests in order."""
    first_error: str
    client_cpu_s: float

    @property
    def rate(self) -> float:
        """Successful answers per second in the window."""
        return len(self.latencies) / self.seconds

    @property
    def errors(self) -> int:
        """Answers that were not 2xx, and requests that got none."""
        return sum(n for status, n in self.statuses.items() if not 200 <= status < 300)

    def latency_ms(self, share: float) -> float:
        """Return the latency that this share (0 to 1) of the answers did not exceed."""
        return 1000 * percentile(self.latencies, share)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed; NaN if none."""
    if not values:
        return float("nan")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def median(values: Sequence[float]) -> float:
    """Return the median, NaN if there is none."""
    return statistics.median(values) if values else float("nan")


def mean(values: Sequence[float]) -> float:
    """Return the mean, NaN if there is none."""
    return statistics.fmean(values) if values else float("nan")


class Window:
    """When to count, when to stop sending; shared by all connections of a run."""

    def __init__(self, start: float, end: float) -> None:
        self.start, self.end = start, end
        self.latencies = array.array("d")
        self.first_error = ""


class Stream(asyncio.Protocol):
    """One client: a keep-alive connection that is opened again whenever the server closes it."""

    def __init__(self, address: tuple[str, int], requests: Iterator[bytes], window: Window) -> None:
        self._address, self._requests, self._window = address, requests, window
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._sent_at = 0.0
        self._is_waiting = False
        self.answers = array.array("H")
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._opening: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Connect; the first request goes out with it."""
        self._opening = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self, *self._address)
        except OSError as exc:
            self._record(LOST, str(exc).encode())
            await asyncio.sleep(0.05)
            self._reopen()

    def _reopen(self) -> None:
        if time.perf_counter() < self._window.end:
            self.open()
        elif not self.done.done():
            self.done.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self._buffer = cast(asyncio.Transport, transport), b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._is_waiting:
            self._record(LOST, b"connection lost before the answer")
        if not self.done.done():
            self._reopen()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        answer = parse(self._buffer)
        if answer is None:
            return
        status, must_close = answer
        self._record(status, self._buffer)
        self._buffer = b""
        if must_close and self._transport is not None:
            self._transport.close()
        else:
            self._send()

    def _send(self) -> None:
        now = time.perf_counter()
        if now >= self._window.end or self._transport is None:
            self.stop()
            return
        self._is_waiting, self._sent_at = True, now
        self._transport.write(next(self._requests))

    def _record(self, status: int, raw: bytes) -> None:
        now, window = time.perf_counter(), self._window
        self._is_waiting = False
        self.answers.append(status)
        if not 200 <= status < 300:
            window.first_error = window.first_error or raw[:600].decode(errors="replace")
        elif window.start <= now <= window.end:
            window.latencies.append(now - self._sent_at)

    def stop(self) -> None:
        """End this client; a request that is still unanswered counts as lost."""
        if self._is_waiting:
            self._record(LOST, b"no answer within the deadline")
        if not self.done.done():
            self.done.set_result(None)
        if self._transport is not None:
            self._transport.close()


def parse(data: bytes) -> tuple[int, bool] | None:
    """Return status and "the server closes" of an HTTP/1.1 answer, None if more must come."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        stop = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : stop if stop > 0 else end])
        if len(data) < end + 4 + length:
            return None
    elif b"\r\ntransfer-encoding: chunked" in head and not data.endswith(b"\r\n0\r\n\r\n"):
        return None
    return int(data[9:12]), b"\r\nconnection: close" in head


async def _drive(
    address: tuple[str, int], streams: Sequence[Iterator[bytes]], seconds: float, warm_s: float
) -> tuple[Window, list[Stream]]:
    start = time.perf_counter() + warm_s
    window = Window(start, start + seconds)
    clients = [Stream(address, requests, window) for requests in streams]
    for client in clients:
        client.open()
    waits = [client.done for client in clients]
    await asyncio.wait(waits, timeout=warm_s + seconds + ANSWER_S)
    for client in clients:
        client.stop()
    await asyncio.sleep(0.05)
    return window, clients


def run(
    address: tuple[str, int],
    streams: Sequence[Iterator[bytes]],
    seconds: float,
    warm_s: float = 0.5,
) -> Load:
    """Drive one connection per stream for `warm_s + seconds` and return what was answered.

    Args:
        address: host and port of the server.
        streams: endless iterators of whole HTTP/1.1 requests, one per connection.
        seconds: length of the measured window; requests in flight at its end are waited for.
        warm_s: time before the window, answers in it are checked but not measured.
    """
    cpu_s = time.process_time()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        window, clients = runner.run(_drive(address, streams, seconds, warm_s))
    statuses = collections.Counter(status for client in clients for status in client.answers)
    return Load(
        seconds=seconds,
        latencies=window.latencies,
        statuses=dict(sorted(statuses.items())),
        answers=[client.answers for client in clients],
        first_error=window.first_error,
        client_cpu_s=time.process_time() - cpu_s,
    )
