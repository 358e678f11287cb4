"""Locust's own page with our tab, of a real Locust with two workers."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.fixtures_postgres import free_port

LOCUSTFILE = """
import time
from pathlib import Path
import gevent
import locust
from mlfleet.load.requests import Recorder
from mlfleet.load.resources import Sampler
from mlfleet.load.swarm import page

FOLDER = Path({folder!r})


class Sleeper(locust.User):
    @locust.task
    def sleep(self):
        gevent.sleep(0.05)
        recorder.add("sleep", True, 200, 0.05, time.time())


@locust.events.init.add_listener
def begin(environment, **_):
    global recorder
    is_master = isinstance(environment.runner, locust.runners.MasterRunner)
    recorder = None if is_master else Recorder(FOLDER)
    live = page.install(environment, recorder)
    if is_master:
        sampler = Sampler(FOLDER)
        sampler.start()
        live.begin(FOLDER, {{"p99_s": 0.01}})
        environment.events.quitting.add_listener(lambda **_: sampler.stop())
    else:
        gevent.spawn(tell, environment)


def tell(environment):
    while True:
        gevent.sleep(1)
        recorder.populate(environment.runner.user_count, 0, time.time())
        recorder.flush(time.time())
"""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("page"), free_port()
    (folder / "locustfile.py").write_text(LOCUSTFILE.format(folder=str(folder)))
    command = [sys.executable, "-m", "locust", "-f", str(folder / "locustfile.py"), "--autostart"]
    command += ["--processes", "2", "-u", "10", "-r", "10", "--host", "http://127.0.0.1:9"]
    command += ["--web-host", "127.0.0.1", "--web-port", str(port)]
    master = str(free_port())
    command += ["--master-bind-port", master, "--master-port", master]
    with (folder / "log").open("wb") as log:
        locust = subprocess.Popen(command, stdout=log, stderr=log, process_group=0)
    yield f"http://127.0.0.1:{port}"
    locust.send_signal(signal.SIGTERM)
    try:
        locust.wait(20)
    finally:
        if locust.poll() is None:
            os.killpg(locust.pid, signal.SIGKILL)
            locust.wait()


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def wait_for(condition, wait_s=40.0):
    end, last = time.monotonic() + wait_s, None
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except OSError as exc:
            last = exc
        time.sleep(0.2)
    raise AssertionError(f"waited too long ({last})")


def test_points_have_the_answers_of_all_workers(url):
    def point():
        points = json.loads(get(f"{url}/fleet/data"))["points"]
        return next((p for p in points if p["users"] == 10 and p["rate"] > 0 and p["cpu"]), None)

    found = wait_for(point)
    assert found["warm_p99_s"] == pytest.approx(0.05, rel=0.025)
    assert "sampler" in found["cpu"]


def test_the_tab_of_locust_has_our_figures(url):
    def rows():
        stats = json.loads(get(f"{url}/stats/requests"))
        (ours,) = stats["extended_stats"]
        found = {row["figure"]: row for row in ours["data"]}
        return found if "answered" in found else None

    found = wait_for(rows)
    assert found["limits exceeded"]["now"] == "p99 of warm requests"
    assert found["warm p99"]["now"].endswith(" ms")
    page = get(url)
    assert '"title": "Fleet"' in page


def test_the_charts_are_a_page_of_their_own(url):
    page = wait_for(lambda: get(f"{url}/fleet"))
    assert "fleet/data" in page
    assert "http" not in page.replace("http-equiv", "")
