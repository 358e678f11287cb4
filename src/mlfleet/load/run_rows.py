"""Compare runs: each that was acknowledged, and no more than creates without an answer explain."""

from mlfleet.load import facts
from mlfleet.load.findings import Account, Repeat
from mlfleet.load.holdings import Holdings
from mlfleet.load.promises import NAME_TAG, PARENT_TAG, Makings, Promise, Promises, RunKey
from mlfleet.load.rows import compare_rows


def compare_runs(account: Account, promised: Promises, found: Holdings) -> dict[str, str]:
    """Account for the runs; return the name of each whose rows are to be compared, by id."""
    ids_by_name: dict[str, list[str]] = {}
    told = {run_id: name for name, made in promised.runs.items() for run_id in made.told}
    for run_id, run in sorted(found.runs.items()):
        if run_id not in told:
            ids_by_name.setdefault(run.name, []).append(run_id)
    count = account.counts["run"]
    for name, made in promised.runs.items():
        count.sent += made.sent
        count.acknowledged += len(made.told)
        account.unanswered_creates += made.unanswered
        for run_id in made.told:
            _check_told(account, name, run_id, found)
    explained: dict[str, str] = {}
    for name, extra in ids_by_name.items():
        made = promised.runs.get(name, Makings())
        explained |= dict.fromkeys(extra[: made.unanswered], name)
        _explain(account, name, made, extra)
    there = {run_id: name for run_id, name in told.items() if run_id in found.runs}
    _compare_statuses(account, promised, found, there, explained)
    return there | explained


def _check_told(account: Account, name: str, run_id: str, found: Holdings) -> None:
    if (run := found.runs.get(run_id)) is None:
        account.note("missing", "run", name, detail="and every row of it", run_id=run_id)
        return
    right = (name, facts.start_ms(name), "active")
    if (is_now := (run.name, run.start_ms, run.stage)) == right:
        account.counts["run"].found += 1
    else:
        account.note("altered", "run", name, detail=f"{is_now} instead of {right}", run_id=run_id)


def _explain(account: Account, name: str, made: Makings, extra: list[str]) -> None:
    by_creates, by_nothing = extra[: made.unanswered], extra[made.unanswered :]
    if by_creates:
        account.counts["run"].found += len(by_creates)
        account.repeats.append(
            Repeat("run", account.tenant, name, sorted(made.told), by_creates, made.unanswered)
        )
    reason = "nobody asked for a run of that name"
    if made.sent:
        reason = f"{made.unanswered} of {made.sent} creates of that name had no answer"
    for run_id in by_nothing:
        account.note("unexplained", "run", name, detail=reason, run_id=run_id)


def _compare_statuses(
    account: Account,
    promised: Promises,
    found: Holdings,
    there: dict[str, str],
    explained: dict[str, str],
) -> None:
    """Compare status and end; a run that nobody was told of can only have begun."""
    as_created: dict[str, Promise[tuple[str, int | None]]] = {
        run_id: Promise(True, [("RUNNING", None)]) for run_id in explained
    }
    names = promised.names | there | explained
    compare_rows(
        account,
        "status",
        promised.finishes | as_created,
        {i: (found.runs[i].status, found.runs[i].end_ms) for i in there | explained},
        lambda run_id: (names[run_id], run_id, ""),
    )


def tags_of_creates(promised: Promises, names: dict[str, str]) -> dict[RunKey, Promise[str]]:
    """Return the tags that the creates of these runs set."""
    tags = {}
    for run_id, name in names.items():
        tags[run_id, NAME_TAG] = Promise(True, [name])
        if parent := promised.runs[name].parent:
            tags[run_id, PARENT_TAG] = Promise(True, [parent])
    return tags
