"""Decide whether two answers say the same.

Pure: two answers and what is known about the two sides come in, differences go out. What a server
chose by itself is masked, but not forgotten: identifiers of the two sides must correspond one to
one for the whole session, generated run names within one answer, and a time both servers took from
their clock must lie within the session. Everything else has to be equal, types included.
"""

import dataclasses
import datetime
import itertools
import json
import math
import re
import urllib.parse
from typing import Any

from mlflow.utils import name_utils

from tests.differential.side import Answer, Call, Side

EXPERIMENT_IDS = (410_000_001, 420_000_001)
"""Where each side's experiment identifiers start, so that they can be told from other numbers."""

_IDENTIFIER = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32}|\b4[12]\d{7}\b"
)
_RUN_NAME = re.compile(
    rf"\b(?:{'|'.join(name_utils._GENERATOR_PREDICATES)})"
    rf"-(?:{'|'.join(name_utils._GENERATOR_NOUNS)})-\d+\b"
)
_PARAMETERS = re.compile(r"\[parameters: (.*)\](?=\n\(Background)", re.DOTALL)
_SET = re.compile(r"\{('[^{}']*'(?:, '[^{}']*')+)\}")
_EIGHT_DIGITS = re.compile(r"[0-9a-f]{8}")
_DIGEST = re.compile(rf"(?<='digest': '){_EIGHT_DIGITS.pattern}(?=')")
_CLOCK_KEY = re.compile(
    r"^(?:creat(?:e|ed|ion)|last_updated?|deleted|deletion)_time(?:stamp)?(?:_ms)?$|"
    r"^(?:creation|lastUpdate)Time$|^(?:created|last_updated)_at$"
)
_SET_KEYS = frozenset({"tags", "params", "request_metadata", "dataset_inputs", "experiment_ids"})
_RUN_DATA = re.compile(r"\.data\.metrics$")
HEADERS = (
    "content-type",
    "content-disposition",
    "content-range",
    "x-content-type-options",
    "x-frame-options",
    "location",
    "allow",
    "retry-after",
    "set-cookie",
    "access-control-allow-origin",
)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One place where two answers disagree."""

    where: str
    left: Any
    right: Any

    def __str__(self) -> str:
        return f"{self.where}: {_short(self.left)} against {_short(self.right)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 1500 else f"{text[:1500]}…"


class Correspondence:
    """A one-to-one relation between the identifiers of two sides, learnt as answers come in."""

    def __init__(self) -> None:
        self._right_of: dict[str, str] = {}
        self._left_of: dict[str, str] = {}

    def accepts(self, left: str, right: str) -> bool:
        """Say whether the two may mean the same thing, and remember them if so."""
        if left not in self._right_of and right not in self._left_of:
            self._right_of[left] = right
            self._left_of[right] = left
        return self._right_of.get(left) == right


class Comparison:
    """Compares answers of one pair of sides within one session."""

    def __init__(
        self,
        left: Side,
        right: Side,
        session_ms: tuple[float, float],
        more_headers: frozenset[str] = frozenset(),
    ) -> None:
        """Prepare to compare.

        Args:
            left: the stock server.
            right: the other one.
            session_ms: epoch milliseconds between which a server's clock can have been read.
            more_headers: what the right side may send where the left one does not.
        """
        self._more_headers = more_headers
        self._left, self._right = left, right
        self._session_ms = session_ms
        self._identifiers = Correspondence()
        self._run_names = Correspondence()

    def differences(self, call: Call, left: Answer, right: Answer) -> list[Difference]:
        """Return every difference between two answers to one call."""
        self._run_names = Correspondence()
        found: list[Difference] = []
        if left.status != right.status:
            found.append(Difference("status", left.status, right.status))
        for name in HEADERS:
            if name in self._more_headers and name not in left.headers:
                continue
            texts = (_header(left, name, self._left.url), _header(right, name, self._right.url))
            found += self._text(f"header {name}", *texts)
        if left.json is None or right.json is None:
            found += self._body(left.body, right.body)
        else:
            found += self._value("$", left.json, right.json, call.unordered)
        return found

    def _body(self, left: bytes, right: bytes) -> list[Difference]:
        if left == right:
            return []
        return self._text("body", left.decode("latin-1"), right.decode("latin-1"))

    def _value(
        self, where: str, left: Any, right: Any, unordered: tuple[str, ...]
    ) -> list[Difference]:
        if isinstance(left, dict) and isinstance(right, dict):
            return self._object(where, left, right, unordered)
        if isinstance(left, list) and isinstance(right, list):
            return self._list(where, left, right, unordered)
        if self._both_clock(where.rsplit(".", 1)[-1], left, right) or _are_digests(
            where, left, right
        ):
            return []
        if isinstance(left, str) and isinstance(right, str):
            if (inner := _nested(left, right)) is not None:
                return self._value(f"{where}.(JSON)", *inner, unordered)
            return self._text(where, left, right)
        return [] if _same_scalar(left, right) else [Difference(where, left, right)]

    def _object(
        self, where: str, left: dict[str, Any], right: dict[str, Any], unordered: tuple[str, ...]
    ) -> list[Difference]:
        found: list[Difference] = []
        if len(left) == len(right) == 1 and left.keys() != right.keys():
            # A map with identifiers as keys; more than one entry would need an order.
            found += self._text(f"{where} key", *left, *right)
            return found + self._value(f"{where}.*", *left.values(), *right.values(), unordered)
        for key in sorted(left.keys() | right.keys()):
            if key not in left or key not in right:
                sides = (left.get(key, "(absent)"), right.get(key, "(absent)"))
                found.append(Difference(f"{where}.{key}", *sides))
            else:
                found += self._value(f"{where}.{key}", left[key], right[key], unordered)
        return found

    def _list(
        self, where: str, left: list[Any], right: list[Any], unordered: tuple[str, ...]
    ) -> list[Difference]:
        if len(left) != len(right):
            return [Difference(f"{where} length", left, right)]
        key = where.rsplit(".", 1)[-1]
        if key in _SET_KEYS or key in unordered or _RUN_DATA.search(where):
            left, right = sorted(left, key=_sort_key), sorted(right, key=_sort_key)
        elif where == "$.metrics":
            left, right = _settled(left), _settled(right)
        return [
            difference
            for index, (one, other) in enumerate(zip(left, right, strict=True))
            for difference in self._value(f"{where}[{index}]", one, other, unordered)
        ]

    def _text(self, where: str, left: str, right: str) -> list[Difference]:
        one, other = self._without_places(left), self._without_places(right)
        if _skeleton(one) != _skeleton(other):
            return [Difference(where, left, right)]
        for pattern, known in (
            (_IDENTIFIER, self._identifiers),
            (_RUN_NAME, self._run_names),
        ):
            tokens = zip(pattern.findall(one), pattern.findall(other), strict=True)
            if not all(known.accepts(*pair) for pair in tokens):
                return [Difference(f"{where} (another identifier than before)", left, right)]
        return []

    def _without_places(self, text: str) -> str:
        text = _SET.sub(_sorted_set, _PARAMETERS.sub(self._without_order, text))
        for side in (self._left, self._right):
            for place in side.places:
                text = text.replace(place, "<place>")
        return text

    def _without_order(self, parameters: re.Match[str]) -> str:
        """A failed statement's parameters as a bag of characters: they come in hash order."""
        text = _DIGEST.sub("<digest>", _skeleton(parameters[1]))  # as in `_are_digests`
        text = re.sub(r"\b\d{13}\b", self._without_clock, text)
        return f"[parameters: {''.join(sorted(text))}]"

    def _without_clock(self, number: re.Match[str]) -> str:
        return "<now>" if self._from_clock(number[0]) else number[0]

    def _both_clock(self, key: str, left: Any, right: Any) -> bool:
        if not _CLOCK_KEY.search(key):
            return False
        return self._from_clock(left) and self._from_clock(right) and type(left) is type(right)

    def _from_clock(self, value: Any) -> bool:
        """A moment within this session, as milliseconds, a string of them, or ISO 8601."""
        if isinstance(value, bool) or not isinstance(value, int | str):
            return False
        try:
            moment_ms = float(value)
        except ValueError:
            try:
                moment_ms = datetime.datetime.fromisoformat(str(value)).timestamp() * 1000
            except ValueError:
                return False
        return self._session_ms[0] <= moment_ms <= self._session_ms[1]


def _sort_key(value: Any) -> str:
    return _skeleton(json.dumps(value, sort_keys=True))


def _settled(history: list[Any]) -> list[Any]:
    """A metric's history with ties settled: stock orders by time, step and value, and NaN is 0."""

    def rank(metric: Any) -> tuple[Any, ...]:
        value = 0 if metric.get("value") == "NaN" else metric.get("value")
        return metric.get("timestamp"), metric.get("step"), value

    groups = (group for _, group in itertools.groupby(history, key=rank))
    return [metric for group in groups for metric in sorted(group, key=_sort_key)]


def _nested(left: str, right: str) -> tuple[Any, Any] | None:
    """Both texts as JSON, if each is an object or a list written into a string."""
    if left[:1] not in ("{", "[") or left == right:
        return None
    try:
        return json.loads(left), json.loads(right)
    except ValueError:
        return None


def _sorted_set(members: re.Match[str]) -> str:
    """A Python set in a message, whose order depends on the process's hash seed."""
    return "{" + ", ".join(sorted(members[1].split(", "))) + "}"


def _are_digests(where: str, left: Any, right: Any) -> bool:
    """An evaluation dataset's digest: MLflow derives it from name and clock."""
    return bool(re.search(r"\.dataset(s\[\d+\])?\.digest$", where)) and all(
        isinstance(text, str) and _EIGHT_DIGITS.fullmatch(text) for text in (left, right)
    )


def _header(answer: Answer, name: str, url: str) -> str:
    text = answer.headers.get(name, "(none)")
    if name == "location" and text != "(none)":
        return urllib.parse.urljoin(url, text)
    # Werkzeug lists the methods in hash order.
    return ", ".join(sorted(text.split(", "))) if name == "allow" else text


def _skeleton(text: str) -> str:
    """A text with all that a server may choose replaced by what kind of thing it is."""
    return _RUN_NAME.sub("<name>", _IDENTIFIER.sub("<id>", text))


def _same_scalar(left: Any, right: Any) -> bool:
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (left == right and math.copysign(1, left) == math.copysign(1, right)) or (
            math.isnan(left) and math.isnan(right)
        )
    return bool(left == right)
