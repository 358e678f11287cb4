"""The table of figures under load: rows are kept one by one, the block is made of what is kept."""

from pathlib import Path
from typing import Any

import pytest

from load_figures import __main__ as command
from load_figures import figure
from load_figures.figure import Figure, Kept
from load_figures.rows import chaos, diurnal, five_tasks, storm, users10k
from load_figures.stocks import figures_of

MACHINE = {
    "cores": 2, "cpu": "A CPU", "memory_bytes": 24 << 30, "kernel": "6.1", "python": "3.11",
    "mlflow": "3.17.2", "commit": "abc",
}  # fmt: skip


def kept(measured: str, *, is_met: bool = True) -> Kept:
    found = Figure("a | b", "≤ 1", measured, is_met)
    return Kept(found, "2026-01-01 10:00 UTC", "scripts/load-figures", "full", MACHINE, 0.1)


def test_a_row_takes_the_place_of_its_older_self_only(tmp_path: Path) -> None:
    figure.keep(tmp_path, "storm", kept("old"))
    figure.keep(tmp_path, "soak", kept("soaked"))
    figure.keep(tmp_path, "storm", kept("new"))
    rows = figure.kept(tmp_path)
    assert {name: row.figure.measured for name, row in rows.items()} == {
        "storm": "new",
        "soak": "soaked",
    }


def test_the_block_replaces_its_older_self_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / figure.PAGE
    page.write_text("# Benchmarks\n\nbefore\n")
    for text in ("first", "second"):
        figure.write_page(tmp_path, f"{figure.BEGIN}\n{text}\n{figure.END}")
    written = page.read_text()
    assert written.startswith("# Benchmarks\n\nbefore\n")
    assert "second" in written and "first" not in written
    assert written.count(figure.BEGIN) == written.count(figure.END) == 1


def test_every_row_of_the_table_says_whether_it_was_met() -> None:
    rows = {"storm": kept("x"), "soak": kept("y", is_met=False)}
    lines = figure.block(rows, list(command.ROWS)).splitlines()
    [storm_line] = [line for line in lines if line.startswith("| `storm` | a")]
    [soak_line] = [line for line in lines if line.startswith("| `soak` | a")]
    assert "≤ 1: **met**" in storm_line and "a \\| b" in storm_line
    assert "**not met**" in soak_line


def requests(n: int, failed: int, p99_s: float, cold: int) -> dict[str, Any]:
    return {
        "n": n, "failed": failed, "rate": n / 600, "p50_s": p99_s / 2, "p99_s": p99_s,
        "max_s": p99_s, "warm": {"p50_s": p99_s / 2, "p99_s": p99_s, "max_s": p99_s},
        "cold": {"n": cold},
    }  # fmt: skip


def document(**more: Any) -> dict[str, Any]:
    role = {"role": "gateway", "cores": 0.1, "pss_most_bytes": 100 << 20}
    return {
        "requests": requests(300, 0, 2.0, cold=300),
        "accounts": {"is_good": True, "findings_in_all": 0},
        "fleet": {"awake_least": 210, "awake_most": 300, "wakes": 300},
        "roles": [role], "machine": {"cores": 2, "busy_mean": 0.5}, "users": 10_000,
        "series": {"awake": [18.0, None, 22.0]}, "duration_s": 600, **more,
    }  # fmt: skip


STOCKS = figures_of(
    [{"start_s": 10, "start_cpu_s": 15, "pss_bytes": 2 << 30, "idle_cores": 0.01}] * 3
)


def test_the_storm_is_met_only_if_everybody_woke_and_was_answered() -> None:
    def is_met(**wrong: Any) -> bool:
        asked = {"n": 300, "failed": 0, "p99_s": 2.0, "cold": 300} | wrong
        return storm._figure(document(requests=requests(**asked)), 300, STOCKS).is_met

    assert is_met()
    assert not is_met(n=299)
    assert not is_met(failed=1)
    assert not is_met(cold=299)
    assert not is_met(p99_s=15.1)


def test_what_stock_would_need_in_a_storm_is_computed_from_its_cpu() -> None:
    assert "38 min of all cores (computed)" in storm._figure(document(), 300, STOCKS).beside


@pytest.mark.parametrize(
    "wrong",
    [
        {"requests": requests(99, 1, 0.2, 0)},
        {"requests": requests(99, 0, 0.6, 0)},
        {"accounts": {"is_good": False, "findings_in_all": 1}},
        {"accounts": None},
        {"fleet": {"awake_least": 199, "awake_most": 300}},
        {"users": 9_999},
    ],
)
def test_ten_thousand_users_are_met_only_with_all_that_is_asked(wrong: dict[str, Any]) -> None:
    good = document(requests=requests(99, 0, 0.2, 0))
    assert users10k._figure(good, 10_000, 1000, 300, 240, 600, 200).is_met
    assert not users10k._figure(good | wrong, 10_000, 1000, 300, 240, 600, 200).is_met


def test_the_day_of_a_thousand_tenants_is_weighed_against_as_many_stock_servers() -> None:
    found = diurnal._figure(document(), 1000, STOCKS)
    assert found.is_met
    assert "2,000 GiB" in found.beside and "10.0 cores" in found.beside
    assert "computed from 3 that were measured" in found.beside
    assert not diurnal._figure(document(series={"awake": [40.0]}), 1000, STOCKS).is_met


def chaos_figure(repeats: int, unanswered: int, **wrong: Any) -> Figure:
    accounts = {
        "is_good": True, "findings_in_all": 0, "unanswered_creates": unanswered,
        "repeats": [{"extra": ["r"]}] * repeats, "requests": {"acknowledged": 9},
    }  # fmt: skip
    harm = {"struck": {"instance": 85, "zygote": 10, "gateway": 5}, "missed": 0}
    return chaos._figure(document(accounts=accounts | wrong), harm, 900, [])


def test_chaos_allows_as_many_repeats_as_creates_without_an_answer() -> None:
    assert chaos_figure(3, 3).is_met
    assert not chaos_figure(4, 3).is_met
    assert not chaos_figure(0, 0, is_good=False).is_met


def test_chaos_that_broke_nothing_or_was_not_checked_proves_nothing() -> None:
    assert not chaos._figure(document(accounts=None), {"struck": {}, "missed": 0}, 900, []).is_met
    assert not chaos._figure(document(), {}, 900, []).is_met


def side(name: str, rate: float, *, errors: int = 0, missing: int = 0) -> dict[str, Any]:
    turn = {
        "answered_per_s": rate, "users": 9, "p99_s": 0.4, "errors": errors,
        "figures": {"cpu_ms": 1.0, "pss_mib": 99},
    }  # fmt: skip
    return {"name": name, "is_stock": "stock" in name, "turns": [turn], "missing": missing}


@pytest.mark.parametrize(
    ("ratio", "fleet", "is_met"),
    [
        (5.0, side("fleet", 500), True),
        (4.9, side("fleet", 490), False),
        (6.0, side("fleet", 600, errors=1), False),
        (6.0, side("fleet", 600, missing=1), False),
    ],
)
def test_five_times_stock_counts_without_errors_and_losses(
    ratio: float, fleet: dict[str, Any], is_met: bool
) -> None:
    sides = [side("stock, defaults", 100), fleet]
    probes = {one["name"]: [one["turns"]] for one in sides}
    found = {"ratio": ratio, "p99_s": 0.5, "sides": sides, "probes": probes}
    assert five_tasks._figure(found).is_met is is_met
