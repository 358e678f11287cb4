"""The figures of a run: one document, of which the report, the terminal and report.json are made.

Pure: what the run's folder holds comes in, the document goes out.
"""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlfleet.load import timeline
from mlfleet.load.requests import Key, Line, Tally, merged
from mlfleet.load.roles import CLIENT_ROLES, ROLES
from mlfleet.load.timeline import Row, Windows

Figures = dict[str, Any]
ACCOUNTS = "findings in the accounts"
FULL_SHARE = 0.9
"""Of the most users: from so many on the load counts as full."""


def figures(
    run: Mapping[str, Any],
    tallies: Mapping[Key, Tally],
    users: Sequence[Line],
    rows: Sequence[Row],
    events: Sequence[Mapping[str, Any]],
    check: Mapping[str, Any] | None,
) -> Figures:
    """Return everything that is told of a run.

    Args:
        run: run.json.
        tallies: by second, name and warmth.
        users: lines of users, by second and process.
        rows: resources.jsonl.
        events: events.jsonl.
        check: check.json, None if the accounts were not checked.
    """
    start, end = _bounds(tallies, users, rows)
    windows = Windows.of(start, end)
    rows = [row for row in rows if start - 1 <= row["t"] <= end + 1]
    total = merged(tallies.values())
    warm = merged(tally for key, tally in tallies.items() if key[2])
    cold = merged(tally for key, tally in tallies.items() if not key[2])
    document = {
        "run": dict(run),
        "start": start,
        "duration_s": end - start,
        "requests": {
            **latencies(total),
            "rate": total.n / (end - start),
            "failed": total.errors.total(),
            "warm": latencies(warm),
            "cold": latencies(cold),
        },
        "names": _names(tallies, end - start),
        "users": _most_users(users),
        "fleet": _fleet(rows, users, total),
        "roles": _roles(rows, end - start),
        "servers": _servers(rows, end - start),
        "machine": _machine(rows),
        "connections": _connections(rows),
        "accounts": dict(check) if check else None,
        "events": _events(windows, events),
    }
    document["limits"] = limits(document)
    document["series"] = {
        "step_s": windows.step_s,
        "seconds": windows.seconds,
        **timeline.of_requests(windows, tallies),
        **timeline.of_users(windows, users),
        **timeline.of_resources(windows, rows),
    }
    return document


def latencies(tally: Tally) -> dict[str, Any]:
    """Return how many there were, how long they took, and what failed.

    The middle of a bucket may lie above all that is in it, the longest of all is exact.
    """
    found = {share: tally.latencies.percentile(share) for share in (0.5, 0.95, 0.99)}
    exact = {s: value and min(value, tally.longest_s) for s, value in found.items()}
    return {
        "n": tally.n,
        "p50_s": exact[0.5],
        "p95_s": exact[0.95],
        "p99_s": exact[0.99],
        "max_s": tally.longest_s if tally.n else None,
        "errors": {str(status): count for status, count in sorted(tally.errors.items())},
    }


def limits(document: Figures) -> list[dict[str, Any]]:
    """Return what was asked of the run, and whether it was kept.

    Nothing measured keeps no limit: a run without an answer has no p99 that could be small.
    """
    given, requests = document["run"].get("limits") or {}, document["requests"]
    found = []
    if (most := given.get("p99_s")) is not None:
        found.append(_limit("p99 of warm requests", "s", most, requests["warm"]["p99_s"]))
    if (most := given.get("errors")) is not None:
        share = requests["failed"] / requests["n"] if requests["n"] else None
        found.append(_limit("share of failed tries", "", most, share))
    if (accounts := document["accounts"]) is not None:
        found.append(_limit(ACCOUNTS, "", 0, accounts["findings_in_all"]))
    return found


def _limit(what: str, unit: str, limit: float, measured: float | None) -> dict[str, Any]:
    is_kept = measured is not None and measured <= limit
    return {"what": what, "unit": unit, "limit": limit, "measured": measured, "is_kept": is_kept}


def _bounds(
    tallies: Mapping[Key, Tally], users: Iterable[Line], rows: Iterable[Row]
) -> tuple[int, int]:
    seconds = [key[0] for key in tallies] + [line["t"] for line in users if line["users"]]
    seconds = seconds or [int(row["t"]) for row in rows] or [0]
    return min(seconds), max(seconds) + 1


def _names(tallies: Mapping[Key, Tally], seconds: int) -> list[dict[str, Any]]:
    """Return each request name with its warm and cold answers, what was most frequent first."""
    found = []
    for name in {key[1] for key in tallies}:
        apart = {
            word: merged(tally for key, tally in tallies.items() if key[1:] == (name, warm))
            for word, warm in (("warm", True), ("cold", False))
        }
        rows = {
            word: {**latencies(tally), "rate": tally.n / seconds} for word, tally in apart.items()
        }
        found.append({"name": name, "n": sum(tally.n for tally in apart.values()), **rows})
    return sorted(found, key=lambda row: (-row["n"], row["name"]))


def _most_users(users: Iterable[Line]) -> int:
    return max(_by_second(users).values(), default=0)


def _by_second(users: Iterable[Line]) -> Counter[int]:
    found: Counter[int] = Counter()
    for line in users:
        found[line["t"]] += line["users"]
    return found


def _fleet(rows: Sequence[Row], users: Sequence[Line], total: Tally) -> dict[str, Any] | None:
    """Return who was awake and what wakes took, None if no gateway was asked."""
    awake = [(row["t"], row["awake"]) for row in rows if "awake" in row]
    if not awake:
        return None
    full = _full_load(users)
    at_full = [n for t, n in awake if full is None or full[0] <= t <= full[1]] or [0]
    return {
        "awake_least": min(at_full),
        "awake_median": statistics.median(at_full),
        "awake_most": max(n for _, n in awake),
        "held_most": max((row["held"] for row in rows if "held" in row), default=None),
        "wakes": timeline.grown(rows, lambda row: row.get("wakes")),
        "wake_failures": timeline.grown(rows, lambda row: row.get("wake_failures")),
        "crashes": timeline.grown(rows, lambda row: row.get("crashes")),
        "waited": len(total.wakes),
        "wake_p50_s": total.wakes.percentile(0.5),
        "wake_p99_s": total.wakes.percentile(0.99),
    }


def _full_load(users: Sequence[Line]) -> tuple[int, int] | None:
    """Return the first and last second with nearly all users, None if nobody counted them."""
    at, most = _by_second(users), _most_users(users)
    full = [second for second, count in at.items() if most and count >= most * FULL_SHARE]
    return (min(full), max(full)) if full else None


def _roles(rows: Sequence[Row], seconds: int) -> list[dict[str, Any]]:
    there = {role for row in rows for role in row["roles"]}
    return [_role(role, rows, seconds) for role in ROLES if role in there]


def _role(role: str, rows: Sequence[Row], seconds: int) -> dict[str, Any]:
    def most(field: str) -> Any:
        values = [row["roles"].get(role, {}).get(field) for row in rows]
        return max((value for value in values if value is not None), default=None)

    cpu_s = timeline.grown(rows, lambda row: row["roles"].get(role, {}).get("cpu_s"))
    return {
        "role": role,
        "processes_most": most("count"),
        "cpu_s": cpu_s,
        "cores": cpu_s / seconds,
        "pss_most_bytes": most("pss_bytes"),
        "fds_most": most("fds"),
    }


def _servers(rows: Sequence[Row], seconds: int) -> dict[str, Any]:
    """Return what all that serves used together; memory at the moment when that was most."""

    def total(row: Row, field: str) -> Any:
        values = [of.get(field) for role, of in row["roles"].items() if role not in CLIENT_ROLES]
        return sum(values) if values and None not in values else None

    def most(field: str) -> Any:
        found = (total(row, field) for row in rows)
        return max((value for value in found if value is not None), default=None)

    return {
        "processes_most": most("count"),
        "cores": timeline.grown(rows, lambda row: total(row, "cpu_s")) / seconds if rows else None,
        "pss_most_bytes": most("pss_bytes"),
        "fds_most": most("fds"),
    }


def _machine(rows: Sequence[Row]) -> dict[str, Any] | None:
    if not rows:
        return None
    busy = [row["machine"]["busy"] for row in rows]
    return {
        "cores": rows[-1]["machine"]["cores"],
        "busy_mean": sum(busy) / len(busy),
        "available_least_bytes": min(row["machine"]["available_bytes"] for row in rows),
    }


def _connections(rows: Sequence[Row]) -> dict[str, Any] | None:
    found = [row for row in rows if "connections" in row]
    if not found:
        return None
    return {
        "most": max(row["connections"] for row in found),
        "limit": found[-1].get("max_connections"),
    }


def _events(windows: Windows, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "second": round(event["t"] - windows.start, 3),
            **{k: event[k] for k in ("kind", "detail")},
        }
        for event in events
        if windows.index(event["t"]) is not None
    ]
