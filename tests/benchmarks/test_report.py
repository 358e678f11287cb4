"""What a run writes: verdicts as measured, and only the text between the two markers."""

import json

import pytest

from benchmarks import report
from benchmarks.effort import QUICK
from benchmarks.report import Goal, Row

ROWS = [
    Row("wake", "84 ms", "9 s", Goal("≤ 100 ms", True), Goal("≤ 60 ms", False)),
    Row("a|b", "1", reach=Goal("≥ 2", None)),
]


@pytest.mark.parametrize(
    ("is_met", "word"), [(True, "**met**"), (False, "**not met**"), (None, "not tried")]
)
def test_a_verdict_says_what_was_measured(is_met, word):
    assert report.verdict(Goal("≤ 1 s", is_met)) == f"≤ 1 s: {word}"


def test_a_run_replaces_the_last_figures_and_nothing_else(tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{report.BEGIN}old figures{report.END}\nafter\n")
    for _ in range(2):
        report.write(ROWS, {"cores": 2}, QUICK, "scripts/bench --quick", tmp_path)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "old figures" not in text
    assert text.count("| wake | 84 ms | 9 s | ≤ 100 ms: **met** | ≤ 60 ms: **not met** |") == 1
    assert "| a\\|b | 1 |  | ≥ 2: not tried |  |" in text
    record = json.loads((tmp_path / "benchmarks.json").read_text())
    assert [row["what"] for row in record["rows"]] == ["wake", "a|b"]
