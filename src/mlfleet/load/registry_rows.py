"""Compare the model registry: models, versions, aliases, and the outbox rows of their changes."""

from mlfleet.load.findings import Account, Repeat
from mlfleet.load.holdings import Holdings, Version
from mlfleet.load.promises import Makings, Promises, VersionKey
from mlfleet.load.rows import compare_rows


def compare_registry(account: Account, promised: Promises, found: Holdings) -> None:
    """Account for one tenant's registry."""
    compare_rows(account, "model", promised.models, found.models, lambda name: (name, "", ""))
    compare_rows(
        account, "alias", promised.aliases, found.aliases, lambda key: (key[0], "", key[1])
    )
    _compare_versions(account, promised, found)
    _compare_outbox(account, promised, found)


def _compare_versions(account: Account, promised: Promises, found: Holdings) -> None:
    extra: dict[VersionKey, list[str]] = {}
    told = {
        (made_from[0], number) for made_from, m in promised.versions.items() for number in m.told
    }
    for (model, number), version in sorted(found.versions.items()):
        if (model, number) not in told:
            extra.setdefault((model, version.run_id, version.source), []).append(number)
    count = account.counts["version"]
    for made_from, made in promised.versions.items():
        count.sent += made.sent
        count.acknowledged += len(made.told)
        for number in made.told:
            _check_version(account, made_from, number, found)
    for made_from, numbers in extra.items():
        _explain(account, made_from, promised.versions.get(made_from, Makings()), numbers)


def _check_version(account: Account, made_from: VersionKey, number: str, found: Holdings) -> None:
    model, run_id, source = made_from
    right = Version(run_id, source, "READY")
    if (version := found.versions.get((model, number))) is None:
        account.note("missing", "version", model, number)
    elif version == right:
        account.counts["version"].found += 1
    else:
        account.note("altered", "version", model, number, f"{version} instead of {right}")


def _explain(account: Account, made_from: VersionKey, made: Makings, numbers: list[str]) -> None:
    model, by_creates = made_from[0], numbers[: made.unanswered]
    if by_creates:
        account.counts["version"].found += len(by_creates)
        account.repeats.append(
            Repeat("version", account.tenant, model, sorted(made.told), by_creates, made.unanswered)
        )
    for number in numbers[made.unanswered :]:
        account.note("unexplained", "version", model, number)


def _compare_outbox(account: Account, promised: Promises, found: Holdings) -> None:
    """Each acknowledged change of the registry has its row; each row has a change."""
    if found.changes is None:
        account.unchecked.add("outbox row")
        return
    count = account.counts["outbox row"]
    for change, promise in promised.changes.items():
        count.sent += 1
        count.acknowledged += promise.acknowledged
        if change in found.changes and promise.values:
            count.found += 1
        elif change in found.changes:
            account.note("unexplained", "outbox row", change[1], f"{change[0]} {change[2]}".strip())
        elif promise.acknowledged:
            account.note("missing", "outbox row", change[1], f"{change[0]} {change[2]}".strip())
    for change in found.changes - promised.changes.keys():
        kind, model, what = change
        # A version whose create had no answer: its number was told to nobody.
        if kind != "model_version.created" or (model, what) not in found.versions:
            account.note("unexplained", "outbox row", model, f"{kind} {what}".strip())
