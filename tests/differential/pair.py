"""Two servers that get the same calls, and have to give the same answers."""

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.differential.comparison import Comparison, Difference
from tests.differential.exceptions import WrittenExceptions
from tests.differential.side import Answer, Call, Side

SESSION_S = 6 * 3600
NUMBERS = itertools.count(time.time_ns() // 1_000_000)
"""For names that must be new, also to a server that an earlier session has used."""


class Unequal(AssertionError):  # noqa: N818  what it is, not what went wrong in the test
    """The two servers answered a call differently, and no written exception covers it."""


class Pair:
    """A stock server and the one that has to equal it."""

    def __init__(self, stock: Side, other: Side, written: WrittenExceptions) -> None:
        now_ms = time.time() * 1000
        session = (now_ms - SESSION_S * 1000, now_ms + SESSION_S * 1000)
        self.stock, self.other, self.written = stock, other, written
        self._comparison = Comparison(stock, other, session, written.more_headers)
        self._symbols: Counter[str] = Counter()
        self.steps = 0

    def call(self, call: Call) -> Answer:
        """Send a call to both, compare, and return stock's answer.

        Raises:
            Unequal: the answers differ and `exceptions.toml` does not say why that is right.
        """
        return self._both(call)[0]

    def learn(self, kind: str, call: Call, find: Callable[[Any], str]) -> str | None:
        """Send a call, and return a new symbol for the identifier that each side chose.

        Args:
            kind: lower-case word, part of the symbol.
            call: what makes the thing.
            find: takes a side's JSON and returns the identifier in it.

        Returns:
            None when both refused.
        """
        answers = self._both(call)
        if answers[0].status != 200 or answers[1].status != 200:
            return None
        try:
            found = [str(find(answer.json)) for answer in answers]
        except (KeyError, TypeError):
            return None  # spoiled into another call that is right, a GET for example
        self._symbols[kind] += 1
        symbol = f"@{kind}:{self._symbols[kind]}@"
        self.stock.real[symbol], self.other.real[symbol] = found
        return symbol

    def close(self) -> None:
        """Close all connections to both."""
        self.stock.close()
        self.other.close()

    def _both(self, call: Call) -> tuple[Answer, Answer]:
        self.steps += 1
        left, right = self.stock.send(call), self.other.send(call)
        if self.written.cover(call, right):
            return left, right
        if found := self._comparison.differences(call, left, right):
            raise Unequal(self._report(call, left, right, found))
        return left, right

    def _report(self, call: Call, left: Answer, right: Answer, found: list[Difference]) -> str:
        shown = "\n  ".join(str(difference) for difference in found[:12])
        return (
            f"{call}\n  ({self.stock.name} against {self.other.name})\n  {shown}\n"
            f"  {self.stock.name}: {left.status} {left.body[:1500]!r}\n"
            f"  {self.other.name}: {right.status} {right.body[:1500]!r}"
        )
