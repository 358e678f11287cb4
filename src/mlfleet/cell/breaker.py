"""Cap the requests of one tenant in flight, and queue a bounded number of the rest.

A held request counts as one in flight: whatever waits for a waking instance is bounded too.
"""

import asyncio
from collections import deque

from mlfleet.errors import NoCapacityError


class Breaker:
    """Lets `concurrency` requests pass at once; up to `queue` more wait their turn."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self.concurrency = concurrency
        self.queue = queue
        self.in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def is_idle(self) -> bool:
        """True if nothing is in flight or waiting."""
        return self.in_flight == 0 and not self._waiting

    async def enter(self, wait_s: float) -> None:
        """Wait for a place.

        Raises:
            NoCapacityError: the queue is full, or no place came free in `wait_s`.
        """
        if self.in_flight < self.concurrency and not self._waiting:
            self.in_flight += 1
            return
        if len(self._waiting) >= self.queue:
            raise NoCapacityError(
                f"This tenant has {self.in_flight} requests in flight and {len(self._waiting)} "
                "waiting, which is its limit; try again"
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except BaseException as exc:
            self._give_up(turn)
            if isinstance(exc, TimeoutError):
                raise NoCapacityError(
                    f"No place among this tenant's {self.concurrency} requests in flight came "
                    f"free in {wait_s:g} s; try again"
                ) from exc
            raise

    def leave(self) -> None:
        """Give the place to the longest waiting request."""
        while self._waiting and self.in_flight <= self.concurrency:
            turn = self._waiting.popleft()
            if not turn.done():
                # The place changes hands: in_flight stays as it is.
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _give_up(self, turn: "asyncio.Future[None]") -> None:
        if turn.done() and not turn.cancelled():
            # It got the place in the moment it left.
            self.leave()
        elif turn in self._waiting:
            self._waiting.remove(turn)
