"""How answers look: tables and sizes for people, one JSON document for programs."""

import contextlib
import datetime
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click


def print_json(document: Any) -> None:
    """Print one JSON document; times as ISO 8601."""
    click.echo(json.dumps(document, indent=2, default=_plain))


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return columns as wide as they must be, without trailing blanks."""
    texts = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    lines = [header, *texts]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else str(value)


def size(count: float | None) -> str:
    """Return bytes as people say them: 512 B, 19.4 MiB."""
    if count is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def ago(moment: str | None, now_s: float) -> str:
    """Return how long ago an ISO 8601 moment was, in the largest unit that fits: 42 s, 5 d."""
    if moment is None:
        return "-"
    passed = max(0, round(now_s - datetime.datetime.fromisoformat(moment).timestamp()))
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= seconds:
            return f"{passed // seconds} {unit} ago"
    return f"{passed} s ago"


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Say on stderr what is being done and, when it took over a second, how long it took."""
    began = time.monotonic()
    if sys.stderr.isatty():
        click.echo(f"{what} …", err=True, nl=False)
    try:
        yield
    finally:
        took_s = time.monotonic() - began
        if sys.stderr.isatty():
            click.echo(
                f"\r\033[K{what}: {took_s:.1f} s" if took_s > 1 else "\r\033[K",
                err=True,
                nl=took_s > 1,
            )
        elif took_s > 1:
            click.echo(f"{what}: {took_s:.1f} s", err=True)
