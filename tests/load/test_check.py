"""`mlfleet load check` on a real fleet: one fault in each tenant, one finding for each."""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlfleet.catalogue.catalogue import Catalogue
from mlfleet.database.admin import database_name
from mlfleet.database.connect import connect
from mlfleet.load.ledger import Ledger
from mlfleet.runtime.folder import DataFolder
from tests.load.session import LOAD, Session, write_run

COPY_RUN = (
    "INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, artifact_uri,"
    " experiment_id) SELECT 'ab' || substr(run_uuid, 3), {name}, 'RUNNING', start_time, 'active',"
    " artifact_uri || 'x', experiment_id FROM runs WHERE run_uuid = %(run)s"
)

# What is done to a tenant, and the one finding that must come of it: problem, kind, key, and a part
# of the detail.
FAULTS: dict[str, tuple[str, tuple[str, str, str, str]]] = {
    "none": ("SELECT 1", ("", "", "", "")),
    "metric-gone": (
        "DELETE FROM metrics WHERE run_uuid = %(run)s AND key = 'loss' AND step = 7",
        ("missing", "metric", "loss", "step 7"),
    ),
    "last-metric-gone": (
        "DELETE FROM metrics WHERE run_uuid = %(run)s AND key = 'loss' AND step = 50",
        ("missing", "metric", "loss", "step 50"),
    ),
    "metric-value": (
        "UPDATE metrics SET value = value * 1.0000001 WHERE run_uuid = %(run)s AND step = 9"
        " AND key = 'loss'",
        ("altered", "metric", "loss", "step 9"),
    ),
    "metric-time": (
        "UPDATE metrics SET timestamp = timestamp + 1 WHERE run_uuid = %(run)s AND step = 9"
        " AND key = 'loss'",
        ("altered", "metric", "loss", "step 9"),
    ),
    "metric-nan": (
        "UPDATE metrics SET is_nan = true WHERE run_uuid = %(run)s AND step = 9 AND key = 'loss'",
        ("altered", "metric", "loss", "step 9"),
    ),
    "metric-more": (
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step)"
        " VALUES ('accuracy', 1, 1, %(run)s, 99)",
        ("unexplained", "metric", "accuracy", "step 99"),
    ),
    "metric-twice": (
        "INSERT INTO metrics (key, value, timestamp, run_uuid, step)"
        " VALUES ('accuracy', 1, 1, %(run)s, 3)",
        ("unexplained", "metric", "accuracy", "step 3"),
    ),
    "latest-gone": (
        "DELETE FROM latest_metrics WHERE run_uuid = %(run)s AND key = 'loss'",
        ("missing", "latest metric", "loss", ""),
    ),
    "latest-old": (
        "UPDATE latest_metrics SET step = 49 WHERE run_uuid = %(run)s AND key = 'loss'",
        ("altered", "latest metric", "loss", "49"),
    ),
    "param-gone": (
        "DELETE FROM params WHERE run_uuid = %(run)s AND key = 'lr'",
        ("missing", "param", "lr", ""),
    ),
    "param-cut": (
        "UPDATE params SET value = substr(value, 1, 5999) WHERE key = 'big prompt'",
        ("altered", "param", "big prompt", "instead of"),
    ),
    "param-more": (
        "INSERT INTO params (key, value, run_uuid) VALUES ('x', '1', %(run)s)",
        ("unexplained", "param", "x", "1"),
    ),
    "tag-old": (
        "UPDATE tags SET value = '1' || substr(value, 2) WHERE key = 'phase'",
        ("altered", "tag", "phase", "instead of"),
    ),
    "parent-gone": (
        "DELETE FROM tags WHERE run_uuid = %(run)s AND key = 'mlflow.parentRunId'",
        ("missing", "tag", "mlflow.parentRunId", ""),
    ),
    "run-unfinished": (
        "UPDATE runs SET status = 'RUNNING' WHERE run_uuid = %(run)s",
        ("altered", "status", "", "RUNNING"),
    ),
    "run-end": (
        "UPDATE runs SET end_time = end_time + 1 WHERE run_uuid = %(run)s",
        ("altered", "status", "", "FINISHED"),
    ),
    "run-deleted": (
        "UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = %(run)s",
        ("altered", "run", "", "deleted"),
    ),
    "run-gone": (
        "DELETE FROM tags WHERE run_uuid = %(parent)s;"
        " DELETE FROM runs WHERE run_uuid = %(parent)s",
        ("missing", "run", "", "every row"),
    ),
    "run-twice": (COPY_RUN.format(name="name"), ("unexplained", "run", "", "0 of 1 creates")),
    "run-more": (COPY_RUN.format(name="'stranger'"), ("unexplained", "run", "", "nobody asked")),
    "experiment-gone": (
        f"UPDATE experiments SET name = 'x' WHERE name LIKE '{LOAD}-%%'",
        ("missing", "experiment", "", ""),
    ),
    "alias-gone": ("DELETE FROM registered_model_aliases", ("missing", "alias", "champion", "")),
    "alias-other": (
        "UPDATE registered_model_aliases SET version = 2",
        ("altered", "alias", "champion", "'2'"),
    ),
    "version-gone": ("DELETE FROM model_versions", ("missing", "version", "1", "")),
    "version-source": (
        "UPDATE model_versions SET source = 'elsewhere'",
        ("altered", "version", "1", "elsewhere"),
    ),
    "version-more": (
        "INSERT INTO model_versions (name, version, run_id, source, status)"
        " SELECT name, 2, run_id, source, status FROM model_versions",
        ("unexplained", "version", "2", ""),
    ),
    "outbox-gone": (
        "DELETE FROM mlfleet_outbox WHERE kind = 'model_version.created'",
        ("missing", "outbox row", "model_version.created 1", ""),
    ),
    "span-gone": (
        "DELETE FROM spans WHERE parent_span_id IS NOT NULL",
        ("missing", "span", "", "2 of 3"),
    ),
    "trace-more": (
        "INSERT INTO trace_info (request_id, experiment_id, timestamp_ms, status)"
        " SELECT 'tr-00', experiment_id, timestamp_ms, status FROM trace_info",
        ("unexplained", "trace", "", ""),
    ),
}  # fmt: skip
FILE_FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, str, str, str]]] = {
    "file-gone": (
        lambda folder: (folder / "note.txt").unlink(),
        ("missing", "artifact", "note.txt", ""),
    ),
    "file-cut": (
        lambda folder: os.truncate(folder / "model/weights.bin", 199_999),
        ("altered", "artifact", "model/weights.bin", "199999"),
    ),
    "file-old": (
        lambda folder: (folder / "note.txt").write_bytes(b"older"),
        ("altered", "artifact", "note.txt", ""),
    ),
    "file-more": (
        lambda folder: (folder / "stray").write_text("x"),
        ("unexplained", "artifact", "stray", ""),
    ),
    "file-cut-upload": (
        lambda folder: (folder / ".artifact.uploading.x").write_text("half"),
        ("", "", "", ""),
    ),
}


IDLE = "acc-idle"
"""A tenant without a request, and so without a database."""


@pytest.fixture(scope="module")
def verdict(fleet: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The verdict on one load run: each tenant had a session, and then its fault."""
    folder = tmp_path_factory.mktemp("loadrun")
    names = [f"acc-{name}" for name in (*FAULTS, *FILE_FAULTS)]
    tokens = {t["name"]: t["token"] for t in fleet.command("tenant", "create", *names, IDLE)}
    began_s, ledger, made = time.time(), Ledger(folder, LOAD), {}
    for name in names:
        session = Session(ledger, name, f"{fleet.url}/{name}", tokens[name])
        made[name] = session.everything()
    ledger.close()
    write_run(folder, [{"tenant": n, "url": f"{fleet.url}/{n}"} for n in [*names, IDLE]], began_s)
    before = fleet.run("load", "check", folder)
    assert before.returncode == 0, before.stdout + before.stderr
    with contextlib.closing(Catalogue(DataFolder(fleet.data).read().admin_uri)) as catalogue:
        ids = {tenant.name: tenant.id for tenant in catalogue.tenants()}
    for fault, (statement, _) in FAULTS.items():
        name = f"acc-{fault}"
        plant(fleet.data, ids[name], statement, made[name])
    for fault, (act, _) in FILE_FAULTS.items():
        name = f"acc-{fault}"
        act(fleet.data / "artifacts" / str(ids[name]) / "0" / made[name]["run"] / "artifacts")
    after = fleet.run("load", "check", folder)
    document = json.loads((folder / "check.json").read_text())
    return {**document, "before": before.stdout, "after": after}


def plant(data: Path, tenant: int, statement: str, made: dict[str, str]) -> None:
    """Break something in a tenant's database, past all triggers and foreign keys."""
    uri = DataFolder(data).read().admin_uri
    with (
        contextlib.closing(connect(uri, database_name(tenant))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(statement, made)


@pytest.mark.parametrize("fault", [*FAULTS, *FILE_FAULTS])
def test_one_fault_is_one_finding(verdict, fault):
    name = f"acc-{fault}"
    found = [finding for finding in verdict["findings"] if finding["tenant"] == name]
    problem, kind, key, detail = {**FAULTS, **FILE_FAULTS}[fault][1]
    if not problem:
        assert found == []
        return
    assert [(f["problem"], f["kind"], f["key"]) for f in found] == [(problem, kind, key)]
    assert detail in found[0]["detail"]


def test_a_good_run_is_said_to_be_good_and_a_bad_one_leaves_with_exit_code_1(verdict):
    assert "good: everything acknowledged is there" in verdict["before"]
    assert verdict["after"].returncode == 1
    assert f"not good: findings: {verdict['findings_in_all']}" in verdict["after"].stdout
    assert "acc-metric-gone" in verdict["after"].stdout


def test_counts_add_up(verdict):
    tenants = len(FAULTS) + len(FILE_FAULTS)
    metric = verdict["counts"]["metric"]
    assert metric["sent"] == metric["acknowledged"] == tenants * 101
    assert metric["found"] + metric["missing"] + metric["altered"] == metric["sent"]
    assert verdict["counts"]["run"]["sent"] == 2 * tenants
    assert verdict["requests"]["refused"] == tenants
    assert verdict["tenants"] == tenants + 1
    assert verdict["findings_in_all"] == tenants - 2


def test_a_ledger_whose_process_was_killed_is_named(fleet, tmp_path):
    ledger = Ledger(tmp_path, LOAD)
    write_run(tmp_path, [{"tenant": "demo", "url": f"{fleet.url}/demo"}], time.time())
    answer = fleet.run("load", "check", tmp_path)
    ledger.close()
    assert answer.returncode == 0
    assert f"{ledger.path.name} has no last line" in answer.stdout


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("run.json", None, "run.json cannot be read"),
        ("run.json", "{}", "does not describe a load run"),
        ("targets.json", '[{"tenant": "nobody", "url": "http://h/nobody"}]', "no tenant 'nobody'"),
        ("accounts-1-0.jsonl", '["other","log",200,1,null,0,["r","n"]]\n', "does not name 'other'"),
    ],
)
def test_what_cannot_be_checked_is_one_line_that_says_why(fleet, tmp_path, name, text, says):
    write_run(tmp_path, [{"tenant": "demo", "url": f"{fleet.url}/demo"}], time.time())
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    answer = fleet.run("load", "check", tmp_path)
    assert answer.returncode != 0
    assert answer.stderr.count("\n") == 1
    assert says in answer.stderr
    assert not (tmp_path / "check.json").exists()
