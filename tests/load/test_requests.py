"""What is recorded is what is read, whoever wrote it and whenever it was flushed."""

import subprocess
import sys
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.load.requests import Recorder, merged, read

answers = st.lists(
    st.tuples(
        st.sampled_from(["runs/create", "log-batch"]),
        st.booleans(),
        st.sampled_from([200, 429, 0]),
        st.floats(0.001, 100),
        st.floats(1000, 1010),
    ),
    max_size=60,
)


@given(answers=answers, flushes=st.lists(st.floats(1000, 1012), max_size=5))
def test_every_answer_is_in_the_files_whenever_they_were_flushed(
    answers, flushes, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("run")
    recorder = Recorder(folder)
    for at, answer in enumerate(answers):
        recorder.add(*answer)
        if at < len(flushes):
            recorder.flush(flushes[at])
    recorder.close()
    tallies, _ = read(folder)
    for name, warm, _, _, now in answers:
        key = (int(now), name, warm)
        same = [a for a in answers if (int(a[4]), a[0], a[1]) == key]
        assert tallies[key].n == len(tallies[key].latencies) == len(same)
        assert tallies[key].longest_s == pytest.approx(max(a[3] for a in same), abs=1e-6)
        assert tallies[key].errors == {
            status: count for status in (429, 0) if (count := sum(a[2] == status for a in same))
        }
    assert merged(tallies.values()).n == len(answers)


def test_a_second_that_is_not_over_waits_for_the_next_flush(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.add("search", True, 200, 0.1, 1000.4)
    recorder.flush(1000.9)
    assert read(tmp_path) == ({}, [])
    recorder.flush(1001.0)
    assert read(tmp_path)[0][1000, "search", True].n == 1
    recorder.close()


def test_the_last_line_of_a_killed_process_may_be_cut_off(tmp_path):
    (tmp_path / "requests-1.jsonl").write_text(
        '{"t": 5, "name": "search", "warm": true, "n": 2, "errors": {}, "h": {"3": 2}, "max": 1}\n'
        '{"t": 6, "name": "sea'
    )
    tallies, _ = read(tmp_path)
    assert {key: tally.n for key, tally in tallies.items()} == {(5, "search", True): 2}


PROGRAM = """
import sys
from pathlib import Path
from mlfleet.load.requests import Recorder

recorder = Recorder(Path(sys.argv[1]))
for _ in range(int(sys.argv[2])):
    recorder.add("search", False, 200, 0.1, 7.0, wake_s=0.05)
recorder.populate(int(sys.argv[2]), 3, 7.0)
recorder.close()
"""


def test_processes_of_one_run_add_up(tmp_path):
    for count in ("3", "4"):
        subprocess.run([sys.executable, "-c", PROGRAM, tmp_path, count], check=True, timeout=30)
    tallies, users = read(tmp_path)
    tally = tallies[7, "search", False]
    assert (tally.n, len(tally.wakes)) == (7, 7)
    assert tally.wakes.percentile(0.5) == pytest.approx(0.05, rel=0.025)
    assert sorted(line["users"] for line in users) == [3, 4]


def test_starts_are_noted_in_the_second_that_had_them(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.add("search", True, 200, 0.1, 7.9)
    recorder.populate(users=2, intended=1, now=8.001)
    recorder.flush(8.001)
    tallies, users = read(tmp_path)
    assert {second for second, *_ in tallies} == {line["t"] for line in users} == {7}
    recorder.close()


def test_subscribers_get_lines_as_a_reader_of_the_file_would(tmp_path):
    seen = []
    recorder = Recorder(None)
    recorder.subscribe(seen.extend)
    recorder.add("search", True, 503, 0.1, 7.0)
    recorder.flush(8.0)
    (line,) = seen
    assert line["errors"] == {"503": 1}
    assert list(tmp_path.iterdir()) == []


def test_an_answer_is_recorded_in_microseconds(tmp_path):
    recorder = Recorder(tmp_path)
    took_s = min(
        timeit.repeat(lambda: recorder.add("a", True, 200, 0.123, 7.0), number=1000, repeat=5)
    )
    # 1.5 us on an idle machine; the bound is for a crowded one.
    assert took_s / 1000 < 50e-6
