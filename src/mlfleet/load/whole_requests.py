"""Requests without an answer: their rows are all there, or none is."""

from collections import Counter
from collections.abc import Iterator

from mlfleet.load import facts
from mlfleet.load.entries import Log
from mlfleet.load.findings import Account
from mlfleet.load.holdings import Holdings
from mlfleet.load.metric_rows import MetricRows
from mlfleet.load.promises import Promise, Promises

Row = tuple[str, str, str, object]
"""What it is, run id, key, and a metric's step or a tag's edition."""


def compare_whole_requests(
    account: Account, promised: Promises, found: Holdings, metrics: MetricRows
) -> None:
    """Note each unanswered request of which only a part is there.

    A request that was sent again, with the same rows, counts once. Rows that other requests sent
    too say nothing about this one.
    """
    requests = list(dict.fromkeys(promised.unknown_logs))
    senders = Counter(row for request in requests for row in _rows(promised, found, request))
    count = account.counts["whole request"]
    for request in requests:
        rows = [row for row in _rows(promised, found, request) if senders[row] == 1]
        there = sum(_is_there(row, request, found, metrics) for row in rows)
        count.sent += 1
        if 0 < there < len(rows):
            detail = f"{there} of {len(rows)} rows of a request without an answer"
            account.note(
                "altered", "whole request", request.name, _title(request), detail,
                run_id=request.run_id,
            )  # fmt: skip
        elif there:
            count.found += 1


def _rows(promised: Promises, found: Holdings, request: Log) -> Iterator[Row]:
    """Return the rows of a request that nothing but itself can have written."""
    run_id = request.run_id
    for key in request.metrics:
        steps = promised.series[run_id, key].steps
        for step in range(request.first_step, request.last_step + 1):
            if not steps[step]:
                yield "metric", run_id, key, step
    for key in request.params:
        if not promised.params[run_id, key].acknowledged:
            yield "param", run_id, key, 0
    for key, edition in request.tags:
        if _may_tell(
            promised.tags[run_id, key], found.tags.get((run_id, key)), request, key, edition
        ):
            yield "tag", run_id, key, edition


def _may_tell(tag: Promise[str], text: str | None, request: Log, key: str, edition: int) -> bool:
    """Say whether a tag's value tells if this request set it.

    Not if a later one may have replaced it, if an acknowledged one wrote the same, or if the tag is
    a finding of its own.
    """
    own = facts.tag(request.name, key, edition)
    is_finding = tag.acknowledged if text is None else text not in tag.values
    return tag.values[-1] == own and not ((tag.acknowledged and tag.values[0] == own) or is_finding)


def _is_there(row: Row, request: Log, found: Holdings, metrics: MetricRows) -> bool:
    kind, run_id, key, number = row
    if kind == "metric":
        assert isinstance(number, int)
        return metrics.is_there((run_id, key), number)
    if kind == "param":
        return (run_id, key) in found.params
    return found.tags.get((run_id, key)) == facts.tag(request.name, key, int(str(number)))


def _title(request: Log) -> str:
    keys = [*request.metrics, *request.params, *(key for key, _ in request.tags)]
    more = " …" if len(keys) > 3 else ""
    steps = f" steps {request.first_step}-{request.last_step}" if request.metrics else ""
    return ", ".join(keys[:3]) + more + steps
