"""Ten thousand users at once: nothing lost, nothing refused, and quick."""

import concurrent.futures
from typing import Any

from benchmarks.fleet import Fleet
from load_figures.figure import Figure
from load_figures.stage import Stage, brief, load, mib, missing, ms
from mlfleet.load.population import tenant_names

REGISTERED, VISITED, THINK_S = 1000, 240, 60
"""Users are spread over the visited tenants by Zipf's law; all others only are registered."""
COMING_S = 240
"""Users come over this time, as people do: those who come at once would stay in step, and all open
a run, then all list the models. The minutes of the figure begin when the last one is there."""
LEAST_AWAKE, P99_S = 200, 0.5
REACH = (
    f"0 errors, 0 missing, p99 of warm requests ≤ {P99_S} s, at least {LEAST_AWAKE} awake at any"
    " time"
)


def measure(stage: Stage) -> Figure:
    """Run it."""
    seconds, users = stage.seconds(600, 60), stage.count(10_000, 500)
    registered, visited = stage.count(REGISTERED, 100), stage.count(VISITED, 30)
    folder = stage.run_folder("users10k")
    coming = stage.seconds(COMING_S, 10)
    options: list[object] = ["-u", users, "-r", round(users / coming)]
    options += ["-t", f"{coming + seconds:.0f}s"]
    options += ["--think", THINK_S, "--tenants", visited, "--max-p99", P99_S, "--max-errors", 0]
    with stage.fleet("users10k", max_awake=visited + 20) as fleet:
        make_tenants(fleet, registered, visited)
        stage.say(f"{registered} tenants are registered, {visited} are awake")
        with load(fleet, folder, *options) as run:
            found = run.wait(coming + seconds)
    return _figure(found, users, registered, visited, coming, seconds, stage.count(LEAST_AWAKE, 20))


def make_tenants(fleet: Fleet, registered: int, visited: int) -> None:
    """Register tenants, and wake those that users will visit: each gets its database now."""
    names = tenant_names(registered)
    fleet.create(names)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: fleet.cell("POST", f"/wake/{name}"), names[:visited]))


def _figure(
    found: dict[str, Any],
    users: int,
    registered: int,
    visited: int,
    coming: float,
    seconds: float,
    least: int,
) -> Figure:
    requests, awake = found["requests"], found["fleet"]
    warm = requests["warm"]
    roles = {role["role"]: role for role in found["roles"]}
    generator = roles.get("locust", {}).get("cores", 0.0)
    is_met = (
        requests["failed"] == 0
        and bool(found["accounts"] and found["accounts"]["is_good"])
        and (warm["p99_s"] or 99) <= P99_S
        and awake["awake_least"] >= least
        and found["users"] >= users
    )
    memory = sum(role["pss_most_bytes"] or 0 for role in found["roles"])
    return Figure(
        what=f"{found['users']:,} users, who come within {coming / 60:.0f} min and stay for"
        f" {seconds / 60:.0f} min, {registered:,} tenants"
        f" registered, users on {visited} of them, think time {THINK_S} s",
        reach=REACH,
        measured=f"{requests['failed']} errors of {requests['n']:,} ({requests['rate']:.0f}/s),"
        f" {missing(found)}; warm p50 {ms(warm['p50_s'])}, p99 {ms(warm['p99_s'])}, slowest"
        f" {ms(warm['max_s'])}; awake at least {awake['awake_least']:.0f},"
        f" at most {awake['awake_most']:.0f}",
        beside=f"machine {found['machine']['busy_mean']:.0%} busy, of it the load generator"
        f" {generator:.2f} of {found['machine']['cores']} cores; {mib(memory)} in all",
        is_met=is_met,
        raw=brief(found),
    )
