"""Compare the history of metrics: many rows, read once, in any order."""

from collections import Counter
from collections.abc import Iterable, Set

from mlfleet.load import facts
from mlfleet.load.findings import Account, Problem
from mlfleet.load.holdings import MetricRow
from mlfleet.load.promises import Promise, Promises, RunKey, Series

_SHOWN = 5


class _Checked:
    """One metric of one run: what is promised, and which steps were seen."""

    __slots__ = ("begin_ms", "right", "seed", "series", "wrong")

    def __init__(self, series: Series, key: str) -> None:
        self.series = series
        self.seed = facts.seed(series.name, key)
        self.begin_ms = facts.start_ms(series.name)
        self.right: set[int] = set()
        self.wrong: list[int] = []

    def is_there(self, step: int) -> bool:
        return step in self.right or step in self.wrong

    def row(self, step: int) -> tuple[int, int, float]:
        """Return step, timestamp and value as they should be."""
        return step, self.begin_ms + facts.STEP_MS * step, facts.value(self.seed, step)


class MetricRows:
    """The metrics of one tenant.

    Args:
        names: runs whose rows count, by id.
    """

    def __init__(self, promised: Promises, names: dict[str, str]) -> None:
        self._names = promised.names | names
        self._there: Set[str] = names.keys()
        self._checked = {key: _Checked(series, key[1]) for key, series in promised.series.items()}
        self._extra: dict[RunKey, list[int]] = {}

    def read(self, rows: Iterable[MetricRow]) -> None:
        """Sort the rows into right, wrong and extra."""
        checked_or_none = self._checked.get
        for run_id, key, step, ms, number in rows:
            checked = checked_or_none((run_id, key))
            if checked is None or step not in checked.series.steps:
                if run_id in self._there:
                    self._extra.setdefault((run_id, key), []).append(step)
            elif ms == checked.begin_ms + facts.STEP_MS * step and number == facts.value(
                checked.seed, step
            ):
                checked.right.add(step)
            else:
                checked.wrong.append(step)

    def report(self, account: Account) -> None:
        """Count the rows and note what is not as promised, one finding per metric and problem."""
        count = account.counts["metric"]
        for key, checked in self._checked.items():
            right, wrong = checked.right, set(checked.wrong)
            acknowledged = {step for step, known in checked.series.steps.items() if known}
            count.sent += len(checked.series.steps)
            count.acknowledged += len(acknowledged)
            count.found += len(right)
            self._note(account, "missing", key, acknowledged - right - wrong)
            self._note(account, "altered", key, wrong - right)
            # One wrong row stands for the altered one; what is beyond that came from nowhere.
            beyond = Counter(checked.wrong) - Counter(wrong - right)
            self._note(account, "unexplained", key, beyond.elements())
        for key, steps in self._extra.items():
            self._note(account, "unexplained", key, steps)

    def _note(self, account: Account, problem: Problem, key: RunKey, steps: Iterable[int]) -> None:
        if steps := sorted(steps):
            more = f" and {len(steps) - _SHOWN} more" if len(steps) > _SHOWN else ""
            text = ", ".join(map(str, steps[:_SHOWN]))
            detail = f"step{'s' if len(steps) > 1 else ''} {text}{more}"
            account.note(
                problem, "metric", self._names[key[0]], key[1], detail,
                run_id=key[0], rows=len(steps),
            )  # fmt: skip

    def is_there(self, key: RunKey, step: int) -> bool:
        """Return whether a row of this step was found; an altered one is there, too."""
        return self._checked[key].is_there(step)

    def latest(self) -> dict[RunKey, Promise[tuple[int, int, float]]]:
        """Return what `latest_metrics` must say: the highest step that is promised or there."""
        newest = {}
        for key, checked in self._checked.items():
            steps = checked.series.steps
            if there := [step for step in steps if steps[step] or checked.is_there(step)]:
                newest[key] = Promise(True, [checked.row(max(there))])
        return newest
