"""Reports of made-up runs whose true figures are known."""

import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.errors import FleetError
from mlfleet.load import charts, gallery, report, timeline, two_runs
from mlfleet.load.histogram import middle_s
from mlfleet.load.requests import Recorder, Tally, merged, read
from mlfleet.load.timeline import Windows
from tests.load.made_run import START, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "made"
    make_run(folder, seconds=60, is_chaotic=True)
    return folder


@pytest.fixture(scope="module")
def figures(run):
    return report.write(run)


def edit(run, name, **changes):
    path = run / name
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def small(folder, **run):
    """Make a run of three answers in two seconds."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"run": "00000000", **run}))
    recorder = Recorder(folder)
    recorder.add("search", True, 200, 0.1, START)
    recorder.add("search", True, 500, 0.3, START + 1)
    recorder.add("search", False, 200, 2.0, START + 1, wake_s=1.5)
    recorder.close()
    return folder


def test_the_figures_are_those_of_the_answers(tmp_path):
    found = report.read(small(tmp_path))
    assert found["duration_s"] == 2
    requests = found["requests"]
    assert (requests["n"], requests["rate"], requests["failed"]) == (3, 1.5, 1)
    assert requests["warm"]["errors"] == {"500": 1}
    assert requests["warm"]["p99_s"] == pytest.approx(0.3, rel=0.025)
    assert requests["cold"]["max_s"] == 2.0
    (row,) = found["names"]
    assert (row["name"], row["warm"]["n"], row["cold"]["n"]) == ("search", 2, 1)
    assert found["series"]["rate"] == [1.0, 2.0]
    assert found["series"]["errors"] == {"500": [0.0, 1.0]}
    assert found["series"]["wake_p50_s"][0] is None
    assert found["series"]["wake_p50_s"][1] == pytest.approx(1.5, rel=0.025)


def test_no_percentile_is_above_the_longest(tmp_path):
    small(tmp_path)
    recorder = Recorder(tmp_path)
    # At the foot of its bucket, so that the bucket's middle is above it.
    recorder.add("alone", True, 200, middle_s(250) * 0.98, START)
    recorder.close()
    (row,) = (row for row in report.read(tmp_path)["names"] if row["name"] == "alone")
    assert row["warm"]["p99_s"] == row["warm"]["max_s"] < middle_s(250)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"p99_s": 0.31, "errors": 0.34}, [True, True]),
        ({"p99_s": 0.29, "errors": 0.33}, [False, False]),
        ({"p99_s": None, "errors": None}, []),
        ({}, []),
    ],
)
def test_limits_are_kept_or_missed(tmp_path, limits, kept):
    found = report.read(small(tmp_path, limits=limits))
    assert [row["is_kept"] for row in found["limits"]] == kept


def test_a_limit_on_warm_requests_is_missed_when_there_were_none(tmp_path):
    small(tmp_path, limits={"p99_s": 100.0})
    for path in tmp_path.glob("requests-*"):
        cold = [line for line in path.read_text().splitlines() if '"warm": false' in line]
        path.write_text("\n".join(cold) + "\n")
    (row,) = report.read(tmp_path)["limits"]
    assert not row["is_kept"]


def test_an_account_with_a_finding_is_a_missed_limit(run, tmp_path):
    folder = tmp_path / "again"
    make_run(folder, seconds=10)
    assert all(row["is_kept"] for row in report.read(folder)["limits"])
    edit(folder, "check.json", is_good=False, findings_in_all=2)
    found = report.read(folder)
    assert [row["is_kept"] for row in found["limits"]] == [True, True, False]
    assert "2 findings" in report.summary(found)


def test_the_report_can_be_made_again_and_is_the_same(run, figures):
    before = [(run / name).read_text() for name in ("report.html", "report.json")]
    report.write(run)
    assert [(run / name).read_text() for name in ("report.html", "report.json")] == before


class Refers(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.ids, self.used = [], [], []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not value.startswith("#"):
                self.found.append((tag, value))
            if name == "id":
                self.ids.append(value)
            self.used += re.findall(r"url\(#([^)]+)\)", value or "")
            if name in ("href", "xlink:href") and value.startswith("#"):
                self.used.append(value[1:])
        assert tag not in ("script", "link", "iframe", "img")


def test_the_page_needs_nothing_but_itself(run, figures):
    text = (run / "report.html").read_text()
    page = Refers()
    page.feed(text)
    assert page.found == []
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_drawings_on_one_page_do_not_share_ids(run, figures):
    page = Refers()
    page.feed((run / "report.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    assert set(page.used) <= set(page.ids)


def test_each_chart_is_there_with_colours_that_the_page_decides(run, figures):
    text = (run / "report.html").read_text()
    titles = [chart.title for chart in gallery.gallery(figures)]
    assert len(titles) == 12
    assert all(f"<h3>{title}" in text for title in titles)
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert all("#0a0" not in drawing for drawing in drawings)
    used = set(re.findall(r"var\(--(\w+)\)", "".join(drawings)))
    defined = set(re.findall(r"--(\w+):", text))
    assert used <= defined
    assert set(charts.COLOURS) <= defined


def test_what_users_wrote_cannot_become_markup(tmp_path):
    small(tmp_path, command="mlfleet load run --mix '<script>alert(1)</script>'")
    page = report.html(report.read(tmp_path), "<b>name</b>")
    assert "<script>" not in page
    assert "<b>name" not in page


def test_chaos_is_marked_and_listed(run, figures):
    text = (run / "report.html").read_text()
    assert "instance × 40" in text
    assert "postgres stop was struck" in text
    assert {mark.kind for mark in gallery.marks(figures)} == {
        "instance", "zygote", "gateway", "postgres stop",
    }  # fmt: skip


def test_wakes_are_counted_across_a_restart_of_the_gateway(run, tmp_path):
    folder = tmp_path / "restarted"
    make_run(folder, seconds=10)
    rows = [json.loads(line) for line in (folder / "resources.jsonl").read_text().splitlines()]
    before = rows[4]["wakes"] - rows[0]["wakes"]
    for row, wakes in zip(rows[5:], range(3, 8), strict=True):
        row["wakes"] = wakes
    (folder / "resources.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert report.read(folder)["fleet"]["wakes"] == before + 7


def test_a_run_without_a_fleet_or_a_sampler_has_a_report(tmp_path):
    small(tmp_path)
    found = report.write(tmp_path)
    assert found["fleet"] is None
    assert "not known" in (tmp_path / "report.html").read_text()
    assert "answered" in report.summary(found)


def test_a_folder_that_is_no_run_is_refused_in_words(tmp_path):
    with pytest.raises(FleetError, match=r"no run\.json"):
        report.write(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FleetError, match="no answer and no sample"):
        report.write(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(FleetError, match="cannot be read"):
        report.write(tmp_path)


@given(start=st.integers(0, 10**9), length=st.integers(1, 100_000))
def test_windows_cover_the_time_and_are_few(start, length):
    windows = Windows.of(start, start + length)
    assert windows.count <= timeline.MOST
    assert windows.count * windows.step_s >= length
    assert windows.index(start) == 0
    assert windows.index(start + length - 1) == windows.count - 1
    assert windows.index(start - 1) is None


@given(start=st.floats(90, 130), length=st.floats(0, 60), step=st.sampled_from([1, 2, 5]))
def test_time_is_shared_out_among_windows_without_loss(start, length, step):
    windows = Windows(100, step, 20 // step)
    end = start + length
    inside = max(0.0, min(end, 100 + windows.count * step) - max(start, 100))
    assert sum(s for _, s in windows.overlaps(start, end)) == pytest.approx(inside, abs=1e-6)


def test_cpu_between_two_rare_samples_is_spread_over_the_windows_between():
    roles = [{"roles": {"gateway": {"cpu_s": s, "fds": 3, "pss_bytes": 5}}} for s in (0.0, 4.0)]
    machine = {"busy": 1.0, "cores": 2}
    rows = [{"t": t, "machine": machine, **r} for t, r in zip((100.0, 104.0), roles, strict=True)]
    series = timeline.of_resources(Windows(100, 1, 6), rows)
    assert series["cpu"]["gateway"] == [1.0, 1.0, 1.0, 1.0, None, None]
    assert series["fds"]["gateway"] == [3] * 6


def test_what_windows_say_adds_up_to_the_whole(run, figures):
    tallies, _ = read(run)
    series = figures["series"]
    assert sum(series["rate"]) * series["step_s"] == pytest.approx(merged(tallies.values()).n)
    errors = sum(sum(values) for values in series["errors"].values()) * series["step_s"]
    assert errors == pytest.approx(figures["requests"]["failed"]) != 0


def test_a_window_has_the_percentile_of_all_its_answers():
    tallies = {}
    for second in range(600):
        tally = tallies[START + second, "search", True] = Tally()
        tally.n = 1
        tally.latencies.add(9.0 if second % 5 == 0 else 0.1)
    windows = Windows.of(START, START + 600)
    assert windows.step_s == 5
    series = timeline.of_requests(windows, tallies)
    assert series["warm_p99_s"] == pytest.approx([9.0] * 120, rel=0.025)
    assert series["warm_p50_s"] == pytest.approx([0.1] * 120, rel=0.025)


def test_two_runs_are_compared_with_ratios(tmp_path):
    run, slow = tmp_path / "made", tmp_path / "slow"
    make_run(run, seconds=20)
    make_run(slow, seconds=20, slower=3.0)
    found = {pair.what: pair for pair in two_runs.write(run, slow, tmp_path / "both.html")}
    assert found["warm p50"].ratio == pytest.approx(3.0, rel=0.1)
    assert found["CPU of instance"].ratio > 2
    assert found["wakes"].row[-1] == ""
    assert found["failed tries"].row[-1] == "lower"
    page = (tmp_path / "both.html").read_text()
    assert "made" in page and "slow" in page
    rows = json.loads((tmp_path / "both.json").read_text())
    assert next(row["ratio"] for row in rows if row["what"] == "warm p50") == (
        found["warm p50"].ratio
    )


def test_a_ratio_over_nothing_is_not_made_up(tmp_path):
    pair = two_runs.Pair("x", 0, 5, str)
    assert pair.ratio is None
    assert two_runs.Pair("x", None, 5, str).ratio is None
