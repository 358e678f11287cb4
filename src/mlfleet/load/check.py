"""Check the accounts of a load run against every tenant's database and artifact folder."""

import datetime
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mlfleet.errors import FleetError
from mlfleet.load import found, ledger, verdict
from mlfleet.load.accounts import compare
from mlfleet.load.files import Files
from mlfleet.load.findings import Account
from mlfleet.load.holdings import Holdings, Window
from mlfleet.load.places import Place, places
from mlfleet.load.promises import promises
from mlfleet.load.targets import read_targets
from mlfleet.load.verdict import Verdict

PROCESSES = 2
FEW = 8
"""Tenants that are checked in this process: starting others takes longer."""


class Task(NamedTuple):
    """One tenant to check."""

    place: Place
    lines: list[bytes]
    window: Window


def check(
    folder: Path, data: Path, report: Callable[[int, int], None] = lambda done, of: None
) -> Verdict:
    """Check a load run and write check.json into its folder.

    Args:
        data: the fleet's data folder, unless the targets name their databases.
        report: told how many tenants of how many are done.

    Raises:
        FleetError: the folder is no load run, or a database cannot be reached.
    """
    began_s = time.monotonic()
    window = _window(folder)
    books = ledger.read(folder)
    targets = read_targets(folder / "targets.json")
    if strangers := books.lines.keys() - {target.tenant for target in targets}:
        raise FleetError(f"{folder}/targets.json does not name {sorted(strangers)[0]!r}")
    tasks = [Task(p, books.lines.get(p.tenant, []), window) for p in places(targets, data)]
    # The largest first, so that no process is left alone with it at the end.
    tasks.sort(key=lambda task: -len(task.lines))
    result = Verdict(window.load)
    for account in _accounts(tasks):
        result.add(account)
        report(result.tenants, len(tasks))
    result.remarks += _about_ledgers(books)
    result.took_s = time.monotonic() - began_s
    _write(folder / "check.json", result)
    return result


def _accounts(tasks: list[Task]) -> Iterator[Account]:
    if len(tasks) < FEW:
        yield from map(check_tenant, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        yield from pool.imap_unordered(check_tenant, tasks)


def check_tenant(task: Task) -> Account:
    """Return the account of one tenant."""
    place = task.place
    promised = promises(ledger.parse(task.lines))
    if not place.is_there:
        account = compare(place.tenant, promised, Holdings(artifacts={}, changes=set()))
    else:
        files = Files(place.artifacts) if place.artifacts else None
        with found.read(place.uri, place.database, files, task.window, promised.traces) as holdings:
            account = compare(place.tenant, promised, holdings)
    account.findings = verdict.worst_first(account.findings)
    return account


def _window(folder: Path) -> Window:
    """Return what run.json says of the load run's id and time."""
    path = folder / "run.json"
    try:
        run = json.loads(path.read_text())
        ended_at = run.get("ended_at") or time.time()
        return Window(run["run"], _ms(run["started_at"]), _ms(ended_at))
    except OSError as exc:
        raise FleetError(
            f"{path} cannot be read ({exc.strerror}): name a load run's folder"
        ) from exc
    except (KeyError, TypeError, ValueError) as exc:
        raise FleetError(f"{path} does not describe a load run: {exc!r}") from exc


def _ms(moment: str | float) -> int:
    if isinstance(moment, str):
        moment = datetime.datetime.fromisoformat(moment).timestamp()
    return int(moment * 1000)


def _about_ledgers(books: ledger.Books) -> Iterator[str]:
    if not books.files:
        yield "there is no ledger: nothing was promised"
    for name in books.unfinished:
        yield (
            f"{name} has no last line: its process was killed, and rows of the requests that it"
            " had in flight look unexplained"
        )


def _write(path: Path, result: Verdict) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(result.document(), indent=1))
    draft.rename(path)
