"""45 minutes at about a third of what the machine can do: does anything grow?"""

from load_figures.figure import Figure
from load_figures.stage import Stage, brief, load, missing, wait_until_it_began
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
    settle_s = stage.seconds(soak.SETTLE_S, 40)
    folder = stage.run_folder("soak")
    users = stage.count(450, 100)
    options = ("-u", users, "-r", 20, "-t", f"{seconds:.0f}s", "--think", THINK_S)
    # Nobody falls asleep: a process that is there all the time is one that can be judged.
    with (
        stage.fleet("soak", idle_s=3600) as fleet,
        load(fleet, folder, *options, "--tenants", TENANTS) as run,
        Census(folder, DataFolder(fleet.data), every_s=seconds / 90),
    ):
        wait_until_it_began(run)
        found = run.wait(seconds)
    cores = sum(role["cores"] for role in found["roles"]) / found["machine"]["cores"]
    rows = list(requests.read_lines(folder, "resources.jsonl"))
    roles = soak.judge(soak.of_resources(rows), settle_s)
    single = soak.judge(soak.of_processes(census.read(folder)), settle_s)
    grown = [one for one in (*roles, *single) if not one.is_flat]
    is_met = bool(roles and single) and not grown and found["accounts"]["is_good"]
    return Figure(
        what=f"soak: {seconds / 60:.0f} min, {users} users of {TENANTS} tenants,"
        f" {found['requests']['rate']:.0f} requests/s, {cores:.0%} of the machine's cores",
        reach=REACH,
        measured=_words(roles, single, grown) + f"; {missing(found)}",
        is_met=is_met,
        raw=brief(found) | {"growth": [_plain(one) for one in (*roles, *single)]},
    )


def _words(roles: list[Growth], single: list[Growth], grown: list[Growth]) -> str:
    if not roles or not single:
        return "too short to say"
    if grown:
        return "; ".join(
            f"{one.name}: {one.first:,.0f} → {one.last:,.0f} {one.unit}" for one in grown[:5]
        )
    most = max(single, key=lambda one: one.share if one.unit == "bytes" else -1.0)
    by_role = ", ".join(f"{o.name} {o.share:+.1%}" for o in roles if o.unit == "bytes")
    return (
        f"memory by role: {by_role}; of {len({o.name for o in single})} single processes the most:"
        f" {most.name.split()[0]} {most.share:+.1%}; descriptors and connections flat"
    )


def _plain(one: Growth) -> dict[str, object]:
    return {
        "name": one.name, "unit": one.unit, "first": one.first, "last": one.last,
        "is_flat": one.is_flat,
    }  # fmt: skip
