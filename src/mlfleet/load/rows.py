"""Compare rows that have one value for each key."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from mlfleet.load.findings import Account
from mlfleet.load.promises import Promise

K = TypeVar("K")
V = TypeVar("V")
Place = tuple[str, str, str]
"""Name of a run (or model, or experiment), its id, and a key in it."""
_LONGEST = 60


def compare_rows(
    account: Account,
    kind: str,
    promised: Mapping[K, Promise[V]],
    found: Mapping[K, V],
    place: Callable[[K], Place],
) -> None:
    """Count the rows of a kind, and note each that is missing, altered or unexplained."""
    count = account.counts[kind]
    for key, promise in promised.items():
        count.sent += 1
        count.acknowledged += promise.acknowledged
        name, run_id, inner = place(key)
        if key not in found:
            if promise.acknowledged:
                account.note("missing", kind, name, inner, run_id=run_id)
        elif found[key] in promise.values:
            count.found += 1
        elif promise.values:
            detail = f"{_short(found[key])} instead of {_short(promise.values[0])}"
            account.note("altered", kind, name, inner, detail, run_id=run_id)
        else:
            account.note("unexplained", kind, name, inner, "it was refused", run_id=run_id)
    for key in found.keys() - promised.keys():
        name, run_id, inner = place(key)
        account.note("unexplained", kind, name, inner, _short(found[key]), run_id=run_id)


def _short(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
