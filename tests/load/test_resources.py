"""The sampler as a run uses it: a process of its own that watches real ones."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlfleet.load import gateway_metrics
from mlfleet.load.processes import Process
from mlfleet.load.resources import FILE, Sampler, Weights, latest

BUSY = """
import os, sys, time
kept = b"x" * 50_000_000
if os.fork() == 0:
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass
    os._exit(0)
os.wait()
sys.stdin.read()
"""


def wait_for(condition, wait_s=30.0):
    end = time.monotonic() + wait_s
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
    return found


def lines(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_a_tree_is_counted_with_its_memory_and_the_cpu_of_ended_children(tmp_path):
    root = subprocess.Popen([sys.executable, "-c", "input()\n" + BUSY], stdin=subprocess.PIPE)
    sampler = Sampler(tmp_path, trees={"stock": root.pid})
    try:
        sampler.start()
        wait_for(lambda: latest(tmp_path))
        root.stdin.write(b"\n")
        root.stdin.flush()

        def weighed():
            role = latest(tmp_path)["roles"].get("stock", {})
            return role.get("pss_bytes") and role["cpu_s"] >= 0.5 and role["pss_bytes"] > 50e6

        wait_for(weighed)
    finally:
        sampler.stop()
        root.communicate(timeout=10)
    line = latest(tmp_path)
    assert 0.5 <= line["roles"]["stock"]["cpu_s"] < 1.5
    assert line["roles"]["stock"]["fds"] == 3
    assert line["roles"]["sampler"]["count"] == 1
    assert 0 <= line["machine"]["busy"] <= 1
    gaps = [b["t"] - a["t"] for a, b in zip(lines(tmp_path), lines(tmp_path)[1:], strict=False)]
    assert min(gaps) > 0.5


def test_a_sampler_ends_when_its_run_is_killed(tmp_path):
    program = f"""
import time
from pathlib import Path
from mlfleet.load.resources import Sampler
sampler = Sampler(Path({str(tmp_path)!r}))
sampler.start()
print(sampler._process.pid, flush=True)
time.sleep(60)
"""
    run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with run:
        sampler = int(run.stdout.readline())
        wait_for(lambda: latest(tmp_path))
        run.kill()

    def is_gone():
        try:
            stat = Path(f"/proc/{sampler}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_for(is_gone)


def test_before_the_first_line_nothing_is_latest(tmp_path):
    assert latest(tmp_path) is None
    (tmp_path / FILE).write_text('{"t": 1')
    assert latest(tmp_path) is None
    (tmp_path / FILE).write_text('{"t": 1}\n{"t": 2')
    assert latest(tmp_path) == {"t": 1}


def instance(pid):
    return Process(pid, 1, "python", "", 0.0, 0.0, started_s=float(pid))


def test_a_process_not_yet_weighed_counts_as_the_mean_of_its_role(monkeypatch):
    monkeypatch.setattr("mlfleet.load.resources.WEIGH_S", -1.0)
    monkeypatch.setattr("mlfleet.load.processes.pss_bytes", lambda pid: pid)
    found, weights = [instance(100), instance(300)], Weights()
    assert weights.total(found) is None
    weights.step(found)
    assert weights.total(found) in (200, 600)
    weights.step(found)
    # In turns: the other one now.
    assert weights.total(found) == 400


def test_a_role_that_may_not_be_weighed_has_no_sum(monkeypatch):
    def pss_bytes(pid):
        if pid == 200:
            raise PermissionError
        return pid

    monkeypatch.setattr("mlfleet.load.processes.pss_bytes", pss_bytes)
    weights = Weights()
    weights.step([instance(100), instance(200)])
    assert weights.total([instance(100), instance(200)]) is None
    assert weights.total([instance(100)]) == 100


def test_a_gateways_metrics_are_read_by_our_names():
    from mlfleet.cell.metrics import Metrics

    metrics = Metrics()
    metrics.awake.set(7)
    metrics.wakes.inc(3)
    metrics.wake_seconds.observe(0.06)
    found = gateway_metrics.parse(metrics.render().decode())
    assert (found["awake"], found["wakes"], found["held"]) == (7, 3, 0)
    assert (found["wake_buckets"]["0.05"], found["wake_buckets"]["+Inf"]) == (0, 1)


def test_a_gateway_that_is_away_says_nothing():
    assert gateway_metrics.read("http://127.0.0.1:9/metrics") == {}


@pytest.mark.parametrize("text", ["", "# only comments\n"])
def test_empty_metrics_are_no_error(text):
    assert gateway_metrics.parse(text) == {}
