"""The written list of what may differ from stock, read from `exceptions.toml`.

An entry covers a call by method, path and body, and says which status the other server has to
answer with. An entry that nothing needed is reported by a test, so the list cannot outlive its
reasons.
"""

import dataclasses
import re
import tomllib
from pathlib import Path

from tests.differential.side import Answer, Call

FILE = Path(__file__).with_name("exceptions.toml")


@dataclasses.dataclass
class WrittenException:
    """One allowed difference."""

    name: str
    reason: str
    method: str
    path: str
    status: list[int]
    """What the other server may answer."""
    body: str = ""
    """A pattern that the body of the call must contain; empty for any body."""
    says: str = ""
    """A pattern that the other server's answer must contain."""
    was_used: bool = False

    def covers(self, call: Call) -> bool:
        """Say whether the entry speaks about this call."""
        return bool(
            re.fullmatch(self.method, call.method)
            and re.fullmatch(self.path, call.path)
            and re.search(self.body, call.text)
        )

    def accepts(self, answer: Answer) -> bool:
        """Say whether the other server answered what the entry promises."""
        text = answer.body.decode(errors="replace")
        return answer.status in self.status and bool(re.search(self.says, text))


class WrittenExceptions:
    """All allowed differences."""

    def __init__(self, path: Path = FILE) -> None:
        written = tomllib.loads(path.read_text())
        self.entries = [WrittenException(**entry) for entry in written["exception"]]
        self.more_headers = frozenset(entry["header"] for entry in written["more"])
        """Headers that the other server may send where stock does not."""

    def cover(self, call: Call, answer: Answer) -> bool:
        """Say whether an entry covers the call and the answer is what the entry promises."""
        for entry in self.entries:
            if entry.covers(call) and entry.accepts(answer):
                entry.was_used = True
                return True
        return False
