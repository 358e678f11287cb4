"""45 minutes at about a third of what the machine can do: does anything grow?"""

from pathlib import Path

from load_figures.figure import Figure
from load_figures.stage import Stage, brief, document, load, missing
from mlfleet.load import census, requests, soak
from mlfleet.load.census import Census
from mlfleet.load.soak import Growth
from mlfleet.runtime.folder import DataFolder

TENANTS, THINK_S = 20, 8
"""Few enough tenants for each to see every kind of user in the first ten minutes: what is used for
the first time later would look like growth."""
REACH = "every process flat within 5 % after 10 minutes, no leak of descriptors or connections"


def measure(stage: Stage) -> Figure:
    """Run it, and judge each role and each process that was there to the end."""
    seconds = stage.seconds(45 * 60, 120)
    folder = stage.run_folder("soak")
    users = stage.count(450, 100)
    options = ("-u", users, "-r", 20, "-t", f"{seconds:.0f}s", "--think", THINK_S)
    # Nobody falls asleep: a process that is there all the time is one that can be judged.
    with (
        stage.fleet("soak", idle_s=3600) as fleet,
        load(fleet, folder, *options, "--tenants", TENANTS) as run,
        Census(folder, DataFolder(fleet.data), every_s=seconds / 90),
    ):
        run.wait(seconds)
    return judge(folder, stage.seconds(soak.SETTLE_S, 40))


def judge(folder: Path, settle_s: float = soak.SETTLE_S) -> Figure:
    """Return what the folder of a run says, now or later."""
    found = document(folder)
    cores = sum(role["cores"] for role in found["roles"]) / found["machine"]["cores"]
    end = found["start"] + found["duration_s"]
    rows = [row for row in requests.read_lines(folder, "resources.jsonl") if row["t"] <= end]
    roles = soak.judge(soak.of_resources(rows), settle_s)
    lines = [line for line in census.read(folder) if line["t"] <= end]
    single = soak.judge(soak.of_processes(lines), settle_s)
    grown = [one for one in (*roles, *single) if not one.is_flat]
    is_good = bool(found["accounts"] and found["accounts"]["is_good"])
    return Figure(
        what=f"soak: {found['duration_s'] / 60:.0f} min, {found['users']} users of"
        f" {found['run']['tenants']} tenants, {found['requests']['rate']:.0f} requests/s,"
        f" {cores:.0%} of the machine's cores",
        reach=REACH,
        measured=_words(roles, single, grown) + f"; {missing(found)}",
        is_met=bool(roles and single) and not grown and is_good,
        raw=brief(found) | {"growth": [_plain(one) for one in (*roles, *single)]},
    )


def _words(roles: list[Growth], single: list[Growth], grown: list[Growth]) -> str:
    if not roles or not single:
        return "too short to say"
    by_role = ", ".join(f"{one.name} {one.share:+.1%}" for one in roles if one.unit == "bytes")
    names = {one.name for one in single}
    bad = ", ".join(f"{one.name.split()[0]} {one.share:+.0%} {one.unit}" for one in grown)
    others = f"grown: {bad}" if grown else "none grew, nor descriptors or connections"
    return f"memory: {by_role}; of {len(names)} processes looked at singly {others}"


def _plain(one: Growth) -> dict[str, object]:
    return {
        "name": one.name, "unit": one.unit, "first": one.first, "last": one.last,
        "is_flat": one.is_flat,
    }  # fmt: skip
