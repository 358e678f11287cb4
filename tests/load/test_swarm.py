"""Locust with our users, started as a person starts it, on real servers."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlfleet.load.entries import RunCreate
from mlfleet.load.histogram import middle_s
from mlfleet.load.ledger import Line, parse
from mlfleet.load.requests import read
from mlfleet.load.trace import burst, csv_of
from tests.fixtures_fleet import MLFLEET, RunningFleet, eventually
from tests.fixtures_postgres import free_port

LOCUSTFILE = Path(__file__).parents[2] / "loadtest" / "locustfile.py"
KINDS = "training=2,llm=1,sweep=1,dashboard=2,registry=1,seed=4"


def load_run(
    folder: Path, *options: object, data: Path | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "MLFLEET_DATA"}
    if data:
        environment["MLFLEET_DATA"] = str(data)
    arguments = [MLFLEET, "load", "run", "--run-folder", folder, *options]
    return subprocess.run(
        [str(argument) for argument in arguments],
        cwd=folder.parent, env=environment, capture_output=True, text=True, timeout=120, **more,
    )  # fmt: skip


def statuses(folder: Path) -> Counter[int]:
    return Counter(line.status for line in ledger_of(folder))


def ledger_of(folder: Path) -> list[Line]:
    ledgers = [path.read_bytes().splitlines() for path in folder.glob("accounts-*.jsonl")]
    assert all(lines[-1] == b'["","end"]' for lines in ledgers)
    return [line for lines in ledgers for line in parse(lines[:-1])]


NAMES = {
    "experiments/create", "runs/create", "runs/log-batch", "runs/log-metric",
    "runs/log-parameter", "runs/search", "runs/set-tag", "runs/update", "artifacts PUT",
    "artifacts PUT checkpoint", "v1/traces", "ui experiments/search", "ui runs/search",
    "ui graphql GetRun", "ui metrics/get-history-bulk-interval", "ui artifacts/list",
    "ui registered-models/search", "registered-models/create", "model-versions/create",
    "registered-models/alias POST", "registered-models/alias GET",
    "model-versions/get-download-uri", "artifacts list", "artifacts GET",
}  # fmt: skip
"""What all kinds of users together ask for."""


@pytest.fixture(scope="module")
def everybody(fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes with users of every kind, until each request was made; then Ctrl-C."""
    folder = tmp_path_factory.mktemp("load") / "run"
    # Another Locust of this machine has the usual port, and its workers would come here.
    master = str(free_port())
    command = [
        sys.executable, "-m", "locust", "-f", LOCUSTFILE, "--headless", "-u", "36", "-r", "36",
        "--tenants", "3", "--think", "0.5", "--mix", KINDS, "--processes", "2", "--checkpoint",
        "1", "--max-errors", "0", "--run-folder", folder, "--host", fleet.url,
        "--master-bind-port", master, "--master-port", master,
    ]  # fmt: skip
    output = folder.with_name("output")
    with output.open("w") as file:
        process = subprocess.Popen(
            [str(part) for part in command], cwd=folder.parent, stdout=file, stderr=file,
            env={**os.environ, "MLFLEET_DATA": str(fleet.data)}, process_group=0,
        )  # fmt: skip
    try:
        eventually(lambda: {name for _, name, _ in read(folder)[0]} >= NAMES, 90)
        process.send_signal(signal.SIGINT)
        process.wait(90)
    finally:
        # Its workers, too: left alone they would disturb the tests that follow.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, output.read_text()
    return folder


def test_every_kind_of_user_is_served_and_after_ctrl_c_nothing_acknowledged_is_missing(
    everybody: Path,
) -> None:
    check = json.loads((everybody / "check.json").read_text())
    assert check["is_good"]
    for kind in ("experiment", "run", "status", "metric", "param", "tag", "artifact", "model",
                 "version", "alias", "trace", "span"):  # fmt: skip
        assert check["counts"][kind]["acknowledged"] > 0, kind
    assert {name for _, name, _ in read(everybody)[0]} == NAMES


def test_every_process_has_its_ledger_and_its_users_names_are_its_own(everybody: Path) -> None:
    assert len(list(everybody.glob("accounts-*.jsonl"))) == 2
    names = [line.entry.name for line in ledger_of(everybody) if isinstance(line.entry, RunCreate)]
    assert len(names) == len(set(names)) > 2
    # Users that are stopped get their answers first: on a healthy fleet none is unknown.
    assert set(statuses(everybody)) == {200}


def test_the_run_says_what_was_run_where_and_keeps_its_tokens_for_its_owner(
    everybody: Path,
) -> None:
    run = json.loads((everybody / "run.json").read_text())
    assert (run["users"], run["tenants"], run["processes"], run["kind"]) == (36, 3, 2, "fleet")
    assert run["machine"]["cores"] == os.cpu_count()
    assert run["limits"] == {"p99_s": None, "errors": 0.0}
    assert run["started_at"] < run["ended_at"]
    assert (everybody / "targets.json").stat().st_mode & 0o077 == 0
    assert everybody.stat().st_mode & 0o077 == 0
    assert (everybody / "report.html").exists()


def test_a_wake_storm_is_one_call_at_each_sleeping_tenant(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    folder = tmp_path / "storm"
    done = load_run(folder, "-u", 6, "--tenants", 6, "--shape", "storm", data=fleet.data)
    assert done.returncode == 0, done.stdout + done.stderr
    tallies, _ = read(folder)
    assert sum(tally.n for tally in tallies.values()) == 6
    assert {(name, warm) for _, name, warm in tallies} == {("runs/create", False)}
    seconds = [second for second, _, _ in tallies]
    assert max(seconds) - min(seconds) <= 4


def test_the_real_client_is_accounted_for_too(fleet: RunningFleet, tmp_path: Path) -> None:
    folder = tmp_path / "client"
    done = load_run(
        folder, "-u", 3, "-r", 3, "-t", "12s", "--tenants", 2, "--think", 0.3,
        "--user-client", "mlflow", "--max-errors", 0, data=fleet.data,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads((folder / "check.json").read_text())["counts"]
    for kind in ("run", "metric", "param", "artifact"):
        assert counts[kind]["acknowledged"] == counts[kind]["found"] > 0, kind


def test_a_limit_that_is_passed_is_said_and_fails_the_run(
    fleet: RunningFleet, tmp_path: Path
) -> None:
    done = load_run(
        tmp_path / "limit", "-u", 4, "-r", 4, "-t", "6s", "--tenants", 2, "--think", 0.3,
        "--mix", "training", "--max-p99", 0.000001, data=fleet.data,
    )  # fmt: skip
    assert done.returncode == 1
    assert "MISSED" in done.stdout


STALL_S = 3.0


class Stalling(http.server.BaseHTTPRequestHandler):
    """A tracking server that answers everybody at once, but stands still for a while once."""

    protocol_version = "HTTP/1.1"
    began: float | None = None

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if Stalling.began is None:
            Stalling.began = time.monotonic()
        if 3 <= (passed := time.monotonic() - Stalling.began) < 3 + STALL_S:
            time.sleep(3 + STALL_S - passed)
        info = {"run_id": "a" * 32, "artifact_uri": "mlflow-artifacts:/0/a/artifacts"}
        body = json.dumps({"run": {"info": info}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def stalling_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalling)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_server_that_stalls_cannot_hide_behind_the_calls_that_were_not_made(
    tmp_path: Path,
) -> None:
    """Four users mean to call five times a second each; for 3 s nobody is answered.

    Were latency counted from when a user was free, four answers were late: one of each user. About
    60 calls were due while the server stood still, their lateness anything from 0 to 3 s.
    """
    targets, folder, table = tmp_path / "targets.json", tmp_path / "run", tmp_path / "locust.json"
    with stalling_server() as url:
        targets.write_text(json.dumps([{"tenant": "t", "url": url}]))
        done = load_run(
            folder, "-u", 4, "-r", 4, "-t", "10s", "--targets", targets, "--think", 0.2,
            "--mix", "training", "--no-check", "--json-file", table,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    tallies, _ = read(folder)
    late = sum(
        count
        for tally in tallies.values()
        for bucket, count in tally.latencies.counts.items()
        if middle_s(bucket) > 1.0
    )
    (stats,) = table.parent.glob(f"{table.name}*")
    in_locusts_table = sum(
        count
        for row in json.loads(stats.read_text())
        for ms, count in row["response_times"].items()
        if float(ms) > 1000
    )
    assert in_locusts_table > 20
    assert in_locusts_table == pytest.approx(late, abs=6)


@pytest.mark.parametrize(
    ("options", "code", "problem"),
    [
        (["--mix", "nobody=1"], 1, "there is no user 'nobody'"),
        (["--shape", "trace", "--trace", "no-such.csv"], 1, "no-such.csv cannot be read"),
        (["--shape", "trace", "--trace", "bad.csv"], 1, "bad.csv line 3: time 0 is not after 0"),
        (["--trace", "bad.csv"], 1, "--trace is for --shape trace"),
        (["--think", "0"], 1, "--think 0 is no number of seconds above 0"),
        (["--max-errors", "7"], 1, "--max-errors 7 is no share"),
        (["--targets", "bad.csv"], 1, "bad.csv is no list of targets"),
        (["--targets", "no-such.json"], 1, "no-such.json cannot be read"),
        (["--host", "http://127.0.0.1:1"], 1, "is not where the fleet of"),
        (["--data", "nowhere"], 4, "there is no fleet in"),
        (["--data", "nowhere", "--processes", "2"], 4, "there is no fleet in"),
        (["--shape", "storm", "--mix", "seed"], 1, "leave --mix out"),
        (["--tenants", "100000"], 1, "100000 tenants are not possible"),
    ],
)
def test_what_no_run_can_be_made_of_is_said_in_one_line(
    options: list[str], code: int, problem: str, fleet: RunningFleet, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text("t_s,rate\n0,1\n0,1\n")
    done = load_run(tmp_path / "run", "-u", 1, "-t", "1s", *options, data=fleet.data)
    assert done.returncode == code, done.stdout + done.stderr
    assert problem in done.stderr
    assert done.stderr.startswith("mlfleet: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_trace_is_replayed_at_its_rate(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(csv_of(burst(2, 10, calm_s=4, jump_s=1, hold_s=4, fall_s=2)))
    Stalling.began = -1e9  # it stood still long ago
    with stalling_server() as url:
        (tmp_path / "targets.json").write_text(json.dumps([{"tenant": "t", "url": url}]))
        done = load_run(
            tmp_path / "run", "-u", 6, "-r", 6, "--shape", "trace", "--trace", trace,
            "--targets", tmp_path / "targets.json", "--no-check", "--mix", "training",
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    tallies, _ = read(tmp_path / "run")
    by_second: Counter[int] = Counter()
    for (second, _, _), tally in tallies.items():
        by_second[second] += tally.n
    first = min(by_second)
    calm = sum(by_second[first + i] for i in range(4))
    busy = sum(by_second[first + i] for i in range(5, 9))
    assert sum(by_second.values()) == pytest.approx(68, abs=2)
    assert calm == pytest.approx(8, abs=4)
    assert busy == pytest.approx(40, abs=6)
