"""Kills, cuts and restarts under load: is everything that was acknowledged still there?"""

import json
import subprocess

from benchmarks.fleet import COMMAND
from load_figures.figure import Figure
from load_figures.stage import Stage, brief, load, wait_until_it_began

USERS, TENANTS, THINK_S = 300, 60, 10
LEAD_S = 20
"""Before the first strike: users arrive, tenants get their databases."""
REACH = (
    "no acknowledged row missing or altered; runs that exist twice ≤ creates without an answer,"
    " each listed"
)


def measure(stage: Stage) -> Figure:
    """Run load and the plan of harm beside it, then read the accounts."""
    seconds = stage.seconds(900, 90)
    kills, restarts, cuts = stage.count(100, 10), 2, stage.count(20, 4)
    folder = stage.run_folder("chaos")
    options = ("-u", USERS, "-r", 30, "-t", f"{seconds:.0f}s", "--think", THINK_S)
    with (
        stage.fleet("chaos", max_awake=200) as fleet,
        load(fleet, folder, *options, "--tenants", TENANTS) as run,
    ):
        wait_until_it_began(run)
        done = subprocess.run(
            [
                COMMAND, "load", "chaos", "--json", "--data", str(fleet.data),
                "--run", str(folder), "--seed", "5", "--kills", str(kills),
                "--restarts", str(restarts), "--cuts", str(cuts),
                "--time", f"{seconds - LEAD_S:.0f}s",
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        found = run.wait(seconds)
    harm = json.loads(done.stdout or "{}")
    return _figure(found, harm, seconds, done.stderr.strip().splitlines()[-1:])


def _figure(
    found: dict[str, object], harm: dict[str, object], seconds: float, last: list[str]
) -> Figure:
    accounts, requests = found["accounts"] or {}, found["requests"]
    assert isinstance(accounts, dict) and isinstance(requests, dict)
    struck = harm.get("struck", {})
    assert isinstance(struck, dict)
    twice = sum(len(one["extra"]) for one in accounts.get("repeats", []))
    unanswered = accounts.get("unanswered_creates", 0)
    acknowledged = accounts.get("requests", {}).get("acknowledged", 0)
    kills = sum(struck.get(kind, 0) for kind in ("instance", "zygote", "gateway"))
    missed = int(str(harm.get("missed", 1)))
    is_met = bool(accounts.get("is_good")) and twice <= unanswered and not missed
    return Figure(
        what=f"chaos: {seconds / 60:.0f} min, {USERS} users of {TENANTS} tenants,"
        f" {requests['rate']:.0f} requests/s; {kills} kills ({_words(struck)})",
        reach=REACH,
        measured=f"{accounts.get('findings_in_all', 'no accounts:')} findings,"
        f" {acknowledged:,} writes acknowledged; {twice} runs exist twice or unasked,"
        f" {unanswered} creates had no answer; {requests['failed']:,} of {requests['n']:,} tries"
        f" failed and were sent again" + f"; {missed} strikes found nobody" * bool(missed),
        is_met=is_met,
        raw={"chaos": harm, "chaos_said": last, **brief(found)},
    )


def _words(struck: dict[str, int]) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(struck.items()))
