"""A run as it is now: in one line, and for a page."""

import json

import pytest

from mlfleet.load.live import WINDOW_S, Live
from mlfleet.load.requests import Recorder
from mlfleet.load.resources import FILE


def told(live, seconds, latency_s=0.1, status=200, per_second=10, users=7):
    """Let a recorder tell what was answered in some seconds."""
    recorder = Recorder(None)
    recorder.subscribe(live.take)
    for second in seconds:
        for _ in range(per_second):
            recorder.add("search", True, status, latency_s, second)
        recorder.populate(users, per_second, second + 1)
    recorder.close()
    return live


def test_the_line_says_rate_latency_and_users():
    line = told(Live(), range(100, 120)).line(120.0)
    assert "7 users  10.0/s" in line
    assert "failed 0" in line
    assert "MISSED" not in line


def test_only_the_last_seconds_count():
    live = told(Live(), range(100, 120), latency_s=5.0)
    told(live, range(120, 120 + WINDOW_S), latency_s=0.001)
    assert live.point()["warm_p99_s"] == pytest.approx(0.001, rel=0.025)


def test_a_server_that_answers_nobody_shows_as_no_rate():
    live = told(Live(), range(100, 110))
    told(live, range(110, 120), per_second=0)
    assert live.point()["rate"] == 0


def test_seconds_that_not_everybody_told_of_are_left_out():
    live = told(Live(lag_s=3), range(100, 120))
    told(live, range(120, 122), per_second=1)
    assert live.point()["rate"] == 10


def test_users_of_all_processes_are_summed_by_what_each_said_last():
    live = Live()
    live.take([{"t": 1, "process": "a-1", "users": 5, "intended": 0}])
    live.take([{"t": 1, "process": "b-1", "users": 4, "intended": 0}])
    live.take([{"t": 2, "process": "a-1", "users": 6, "intended": 0}])
    assert live.point()["users"] == 10


def test_a_limit_that_is_exceeded_is_said_for_the_rest_of_the_run():
    live = Live()
    live.begin(None, {"p99_s": 0.05, "errors": 0.0})
    told(live, range(100, 103), latency_s=0.01)
    assert live.document()["missed"] == []
    told(live, range(103, 106), latency_s=0.01, status=429)
    assert live.document()["missed"] == ["share of failed tries"]
    told(live, range(106, 109), latency_s=1.0)
    assert "MISSED p99 of warm requests" in live.line(109.0)


def test_silence_is_said():
    live = told(Live(), range(100, 103))
    assert "nothing heard for 58 s" in live.line(160.0)
    assert Live().line(5.0) == "no answer yet"


def test_a_new_run_begins_from_nothing(tmp_path):
    live = told(Live(), range(100, 103), status=500)
    live.point()
    live.begin(tmp_path, {})
    assert live.document()["points"] == []
    assert live.line(0.0) == "no answer yet"


def sample(t, cpu_s, pss_bytes):
    roles = {"gateway": {"count": 1, "cpu_s": cpu_s, "pss_bytes": pss_bytes, "fds": 3}}
    machine = {"busy": 0.5, "cores": 2, "available_bytes": 1}
    return {"t": t, "awake": 3, "held": 1, "wakes": 9, "machine": machine, "roles": roles}


def test_points_have_what_the_sampler_wrote(tmp_path):
    live = Live()
    live.begin(tmp_path, {})
    told(live, [100])
    with (tmp_path / FILE).open("a") as file:
        file.write(json.dumps(sample(100.0, 1.0, 5000)) + "\n")
        file.flush()
        live.point()
        file.write(json.dumps(sample(102.0, 1.5, None)) + "\n")
        file.flush()
        point = live.point()
    assert (point["awake"], point["held"], point["busy"]) == (3, 1, 0.5)
    assert point["cpu"] == {"gateway": 0.25}
    assert point["memory"] == {"gateway": 5000}
    assert "awake 3" in live.line(101.0)
