"""What is sent: ordinary fields, and ways to spoil a call that is otherwise right.

Calls are drawn as fields and a `Damage`, so that Hypothesis can shrink either by itself. JSON is
written out here and not by `json.dumps`, because numbers that Python cannot hold, members that
come twice and text that is no JSON are the point.
"""

import dataclasses
import json
from typing import Any

from hypothesis import strategies as st

from tests.differential.side import Call

Fields = tuple[tuple[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Literal:
    """JSON text that goes out as it is."""

    text: str


def render(value: Any) -> str:
    """Return a value as JSON text; tuples of pairs are objects whose names may repeat."""
    if isinstance(value, Literal):
        return value.text
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(key)}: {render(item)}" for key, item in value) + "}"
    if isinstance(value, dict):
        return render(tuple(value.items()))
    if isinstance(value, list):
        return "[" + ", ".join(render(item) for item in value) + "]"
    return json.dumps(value)


class Long(str):
    """A text of one repeated character that prints short."""

    def __new__(cls, unit: str, times: int) -> "Long":
        made = super().__new__(cls, unit * times)
        made._short = f"Long({unit!r}, {times})"
        return made

    def __repr__(self) -> str:
        return self._short


KEYS = ("loss", "acc", "layers/0/w", "λ")
"""Few, so that calls meet."""

ODD_KEYS = (
    "", ".", "..", "a/../b", "/abs", "a//b", "a/", "./a", " ", "a b", "a:b", "a;b", "a\nb", "a\tb",
    "k\u0000", "\u0000", "\ud800", "🚀", "é", "e\u0301", "'; --", "%s", "a\\b", "mlflow.runName",
    "mlflow.user", "mlflow.source.name", "mlflow.note.content", "mlflow.loggedArtifacts",
    Long("k", 250), Long("k", 251), Long("λ", 250), Long("λ", 251), Long("🚀", 250),
)  # fmt: skip

ODD_TEXTS = (
    "", " ", "0", "true", "null", "NaN", "a\u0000b", "\ud800", "🚀", "e\u0301", "\u202e", "\n",
    '"', "\\", "{}", "'; DROP TABLE runs; --", "%(key)s", Long("x", 500), Long("x", 501),
    Long("x", 5000), Long("x", 6000), Long("x", 6001), Long("🚀", 6000), Long("x", 8000),
    Long("x", 8001), Long("x", 70_000),
)  # fmt: skip

NUMBERS = tuple(
    Literal(text)
    for text in (
        "0", "-0.0", "1", "1.5", "-1", "2.5e-3", "NaN", "Infinity", "-Infinity", "1e308", "-1e308",
        "1.7976931348623157e308", "5e-324", "1e-400", "0.1", "0.30000000000000004",
        "9007199254740993", "123456789012345678901234567890", "1E2", '"NaN"', '"Infinity"',
        '"-Infinity"', '"1.5"',
    )
)  # fmt: skip
"""What a metric's value may be."""

WHOLE_NUMBERS = tuple(
    Literal(text)
    for text in (
        "0", "1", "2", "3", "1700000000000", "1700000000123", "-1", "9223372036854775807",
        "-9223372036854775808", "2147483648", '"7"', "5.0", "1e3",
    )
)  # fmt: skip
"""What a step or a timestamp may be."""

ODD_VALUES = (
    *(
        Literal(text)
        for text in (
            "null", "true", "false", "[]", "{}", '""', '" "', "[1]", '{"a": 1}', "1e400", "-1e400",
            "9223372036854775808", "-9223372036854775809", "1" + "0" * 100, "1.5", "-0.0", "NaN",
            '"nan"', '"inf"', '"-inf"', '"1e400"', '"abc"', '"1.5"', '" 1"', '"1 "', '"0x10"',
            '"1_0"', '"+1"', '"\u0661"', '"true"', '[["x"]]', "[null]", '{"key": "a"}', "0", "1",
            "01", "+1", ".5", "1.", "'x'", "undefined", r'"\ud800"', r'"\u0000"', r'"a\u0000b"',
            '"🚀"',
        )
    ),
    *(text for text in ODD_TEXTS if len(text) < 9000),
)  # fmt: skip

ODD_IDS = (
    "", "0", "1", "-1", "00", "1.5", "abc", Long("f", 32), Long("F", 32),
    Long("f", 31), Long("f", 33), "../x", "%00",
    "\u0000", "🚀", "a b", Long("9", 9), Long("9", 18), Long("9", 40), "None", "null",
    Long("x", 300),
)  # fmt: skip

keys = st.sampled_from(KEYS)
any_keys = st.one_of(keys, keys, keys, st.sampled_from(ODD_KEYS))
numbers = st.one_of(
    st.sampled_from(NUMBERS),
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
)
small_steps = st.integers(-2, 3)
steps = st.one_of(small_steps, small_steps, st.sampled_from(WHOLE_NUMBERS))
moments = st.one_of(
    st.sampled_from((1_700_000_000_000, 1_700_000_000_001, 1_700_000_000_999)),
    st.sampled_from(WHOLE_NUMBERS),
)
plain_texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
texts = st.one_of(plain_texts, plain_texts, plain_texts, st.sampled_from(ODD_TEXTS))

BODIES = {
    "empty": "",
    "blank": " \n",
    "null": "null",
    "number": "7",
    "true": "true",
    "list": "[]",
    "list of lists": '[["run_id", "x"]]',
    "text": '"x"',
    "not JSON": "run_id=x",
    "one brace": "{",
    "single quotes": "{'run_id': 'x'}",
    "deep": "[" * 3000 + "]" * 3000,
}
"""Bodies that have nothing to do with the call."""

WRAPPINGS = {
    "doubly encoded": lambda text: json.dumps(text),
    "trailing garbage": lambda text: text + " x",
    "trailing comma": lambda text: text[:-1] + ",}",
    "twice": lambda text: text + text,
    "cut short": lambda text: text[:-2],
    "in a list": lambda text: f"[{text}]",
    "space around": lambda text: f" \r\n\t{text}\n ",
    "comment": lambda text: f"/* x */{text}",
    "byte order mark": lambda text: "\ufeff" + text,
    "broken UTF-8": lambda text: text.encode("utf-8", "surrogatepass")[:-1] + b', "x": "\xff\xfe"}',
    "UTF-16": lambda text: text.encode("utf-16", "surrogatepass"),
    "Latin-1": lambda text: text.replace("loss", "l\u00f6ss").encode("latin-1", "replace"),
    "NUL at the end": lambda text: text + "\x00",
}
"""What happens to a body that was right."""

HEADERS: tuple[dict[str, str | None], ...] = (
    {"Content-Type": None},
    {"Content-Type": "application/json; charset=utf-8"},
    {"Content-Type": "application/json;charset=latin-1"},
    {"Content-Type": "Application/JSON"},
    {"Content-Type": "text/json"},
    {"Content-Type": "text/plain"},
    {"Content-Type": "application/x-www-form-urlencoded"},
    {"Content-Type": "application/jsonx"},
    {"Content-Type": "application/json, text/plain"},
    {"Content-Type": ""},
    {"Accept": "text/html"},
    {"Content-Encoding": "gzip"},
)

METHODS = ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")


@dataclasses.dataclass(frozen=True)
class Damage:
    """One way in which a call is spoiled."""

    kind: str
    index: int = 0
    """Which field; counted round."""
    detail: Any = None

    def apply(self, method: str, path: str, fields: Fields) -> Call:
        """Return the spoiled call."""
        if self.kind in _FIELD_DAMAGES:
            fields = _FIELD_DAMAGES[self.kind](
                fields, self.index % max(len(fields), 1), self.detail
            )
        text: str | bytes = render(fields)
        headers: dict[str, str | None] = {}
        if self.kind == "wrap":
            text = WRAPPINGS[self.detail](text)
        elif self.kind == "body":
            text = BODIES[self.detail]
        elif self.kind == "headers":
            headers = self.detail
        elif self.kind == "method":
            method = self.detail
        elif self.kind == "path":
            path = self.detail.format(path=path)
        return Call(method, path, text, headers=headers)


def _drop(fields: Fields, index: int, _: Any) -> Fields:
    return fields[:index] + fields[index + 1 :]


def _replace(fields: Fields, index: int, value: Any) -> Fields:
    if not fields:
        return fields
    return (*fields[:index], (fields[index][0], value), *fields[index + 1 :])


def _repeat(fields: Fields, index: int, value: Any) -> Fields:
    return (*fields, (fields[index][0], value)) if fields else fields


def _repeat_before(fields: Fields, index: int, value: Any) -> Fields:
    return ((fields[index][0], value), *fields) if fields else fields


def _camel(fields: Fields, index: int, value: Any) -> Fields:
    """Spell a field as protobuf's JSON names do; beside the usual one when there is a value."""
    if not fields:
        return fields
    first, *rest = fields[index][0].split("_")
    name = first + "".join(word.title() for word in rest)
    if value is None:
        return (*fields[:index], (name, fields[index][1]), *fields[index + 1 :])
    return (*fields, (name, value))


def _add(fields: Fields, _: int, name_and_value: Any) -> Fields:
    return (*fields, name_and_value)


_FIELD_DAMAGES = {
    "drop": _drop,
    "replace": _replace,
    "repeat": _repeat,
    "repeat before": _repeat_before,
    "camel": _camel,
    "add": _add,
}

EXTRA_FIELDS = (
    ("unknown", 1), ("unknown", {"a": [1]}), ("run_uuid", "f" * 32), ("run_uuid", None),
    ("run_id", None), ("model_id", "m-" + "0" * 32), ("dataset_name", "d"), ("user_id", "me"),
    ("dataset_digest", "x"), ("step", 5), ("__proto__", {}), ("", 1), ("@type", "x"), ("key", "z"),
)  # fmt: skip

odd_values = st.sampled_from(ODD_VALUES)
indexes = st.integers(0, 5)
damages = st.one_of(
    st.builds(Damage, st.just("drop"), indexes),
    st.builds(Damage, st.just("replace"), indexes, odd_values),
    st.builds(Damage, st.just("replace"), indexes, odd_values),
    st.builds(Damage, st.just("repeat"), indexes, odd_values),
    st.builds(Damage, st.just("repeat before"), indexes, odd_values),
    st.builds(Damage, st.just("camel"), indexes, st.one_of(st.none(), odd_values)),
    st.builds(Damage, st.just("add"), st.just(0), st.sampled_from(EXTRA_FIELDS)),
    st.builds(Damage, st.just("wrap"), st.just(0), st.sampled_from(sorted(WRAPPINGS))),
    st.builds(Damage, st.just("body"), st.just(0), st.sampled_from(sorted(BODIES))),
    st.builds(Damage, st.just("headers"), st.just(0), st.sampled_from(HEADERS)),
    st.builds(Damage, st.just("method"), st.just(0), st.sampled_from(METHODS)),
    st.builds(
        Damage,
        st.just("path"),
        st.just(0),
        st.sampled_from(("{path}/", "/{path}", "{path}?x=1", "/ajax-api{path}", "{path}%20")),
    ),
)
rarely_damaged = st.one_of(st.none(), st.none(), st.none(), damages)


def call(
    method: str, path: str, fields: Fields, damage: Damage | None = None, **options: Any
) -> Call:
    """Return a call with these fields, spoiled if there is a damage."""
    if damage is None:
        return Call(method, path, render(fields), **options)
    return dataclasses.replace(damage.apply(method, path, fields), **options)
