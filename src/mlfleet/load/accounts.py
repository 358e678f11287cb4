"""Compare what a tenant was asked to keep with what it holds: missing, altered, unexplained.

Pure. One fault is one finding: the rows of a run that is gone are counted but not listed, those of
a run that nobody asked for are neither, and a row of `latest_metrics` is judged by what was
promised, not by what is left of the history.
"""

from collections.abc import Mapping
from typing import TypeVar

from mlfleet.load import facts
from mlfleet.load.findings import Account
from mlfleet.load.holdings import Holdings
from mlfleet.load.metric_rows import MetricRows
from mlfleet.load.promises import Promise, Promises, RunKey
from mlfleet.load.registry_rows import compare_registry
from mlfleet.load.rows import Place, compare_rows
from mlfleet.load.run_rows import compare_runs, tags_of_creates
from mlfleet.load.whole_requests import compare_whole_requests

V = TypeVar("V")


def compare(tenant: str, promised: Promises, found: Holdings) -> Account:
    """Return the account of one tenant; `found.metrics` is read to its end."""
    account = Account(tenant, requests={**promised.requests}, remarks=list(found.remarks))
    _compare_experiments(account, promised, found)
    names = compare_runs(account, promised, found)
    known = promised.names | names

    def place(key: RunKey) -> Place:
        return known[key[0]], key[0], key[1]

    metrics = MetricRows(promised, names)
    metrics.read(found.metrics)
    metrics.report(account)
    latest = _in_runs(found.latest, names)
    compare_rows(account, "latest metric", metrics.latest(), latest, place)
    compare_rows(account, "param", promised.params, _in_runs(found.params, names), place)
    tags = promised.tags | tags_of_creates(promised, names)
    compare_rows(account, "tag", tags, _in_runs(found.tags, names), place)
    compare_whole_requests(account, promised, found, metrics)
    if found.artifacts is None:
        account.unchecked.add("artifact")
    else:
        files = _in_runs(found.artifacts, names)
        compare_rows(account, "artifact", _files(promised, known), files, place)
    compare_registry(account, promised, found)
    _compare_traces(account, promised, found)
    _leave_out_rows_of_missing_runs(account)
    return account


def _in_runs(rows: Mapping[RunKey, V], names: Mapping[str, str]) -> dict[RunKey, V]:
    return {key: value for key, value in rows.items() if key[0] in names}


def _files(promised: Promises, names: Mapping[str, str]) -> dict[RunKey, Promise[tuple[int, str]]]:
    """Return size and SHA-256 of each file, from its size and edition."""
    files = {}
    for (run_id, path), promise in promised.artifacts.items():
        right = [
            (size, facts.artifact_sha256(names[run_id], path, size, edition))
            for size, edition in promise.values
        ]
        files[run_id, path] = Promise(promise.acknowledged, right)
    return files


def _compare_experiments(account: Account, promised: Promises, found: Holdings) -> None:
    """Compare by name and id; a create without an answer may have made it under any id."""
    rows: dict[str, Promise[str]] = {}
    for name, promise in promised.experiments.items():
        ids = [made if made is not None else found.experiments.get(name) for made in promise.values]
        rows[name] = Promise(promise.acknowledged, [made for made in ids if made is not None])
    compare_rows(account, "experiment", rows, found.experiments, lambda name: (name, "", ""))


def _compare_traces(account: Account, promised: Promises, found: Holdings) -> None:
    """Compare traces and spans; of an export without an answer all spans are there, or none."""
    traces = {
        t: Promise(p.acknowledged, [True] if p.values else []) for t, p in promised.traces.items()
    }
    compare_rows(
        account, "trace", traces, dict.fromkeys(found.traces, True), lambda trace: (trace, "", "")
    )
    for trace, promise in promised.traces.items():
        spans: frozenset[str] = frozenset().union(*promise.values)
        here = found.traces.get(trace)
        _compare_spans(account, trace, spans, here, promise.acknowledged)


def _compare_spans(
    account: Account, trace: str, spans: frozenset[str], here: frozenset[str] | None, known: bool
) -> None:
    count = account.counts["span"]
    count.sent += len(spans)
    count.acknowledged += len(spans) if known else 0
    if here is None:
        count.missing += len(spans) if known else 0
        return
    count.found += len(here & spans)
    if gone := len(spans - here):
        detail = f"{gone} of {len(spans)} spans"
        if known:
            account.note("missing", "span", trace, detail=detail, rows=gone)
        else:
            account.note("altered", "trace", trace, detail=f"{detail} are missing")
    if beyond := len(here - spans):
        account.note("unexplained", "span", trace, detail=f"{beyond} spans", rows=beyond)


def _leave_out_rows_of_missing_runs(account: Account) -> None:
    gone = {f.run_id for f in account.findings if (f.problem, f.kind) == ("missing", "run")}
    account.findings = [f for f in account.findings if f.kind == "run" or f.run_id not in gone]
    account.found = len(account.findings)
