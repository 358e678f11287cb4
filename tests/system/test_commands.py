"""Every command on a real fleet: what it prints, what it changes, how it leaves."""

import json
import time

import pytest

from tests.fixtures_fleet import RunningFleet, eventually


@pytest.fixture
def tenant(fleet: RunningFleet, request: pytest.FixtureRequest) -> dict[str, str]:
    """A new tenant, named after the test: {"name", "url", "token"}."""
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    return dict(fleet.command("tenant", "create", name))


def search(fleet: RunningFleet, tenant: str, token: str | None) -> int:
    return fleet.call(tenant, token, "experiments/search", {"max_results": 1})[0]


def create_experiment(fleet: RunningFleet, tenant: str, token: str, name: str) -> int:
    return fleet.call(tenant, token, "experiments/create", {"name": name})[0]


def test_creating_shows_name_url_and_token_and_again_changes_nothing(fleet):
    first = fleet.command("tenant", "create", "twice")
    assert first["name"] == "twice"
    assert first["url"] == f"{fleet.url}/twice"
    assert first["token"].startswith("mlf_")
    assert search(fleet, "twice", first["token"]) == 200
    again = fleet.run("tenant", "create", "twice")
    assert again.returncode == 0
    assert "nothing was changed" in again.stdout
    assert search(fleet, "twice", first["token"]) == 200


def test_many_come_from_stdin_one_name_a_line(fleet):
    names = [f"many-{number}" for number in range(1000)]
    text = "# a comment\n\n" + "\n".join(names)
    began = time.monotonic()
    rows = fleet.command("tenant", "create", "--file", "-", input=text)
    took_s = time.monotonic() - began
    assert [row["name"] for row in rows] == names
    assert len({row["token"] for row in rows}) == 1000
    assert took_s < 20
    assert set(names) <= {row["name"] for row in fleet.command("tenant", "list")}
    assert "more: mlfleet status --all" in fleet.run("status").stdout


@pytest.mark.parametrize("name", ["a", "Upper", "under_score", "-x", "a" * 64, "metrics", "ä" * 3])
def test_a_name_that_is_no_dns_label_is_refused_with_the_reason(fleet, name):
    answer = fleet.run("tenant", "create", "--file", "-", input=name)
    assert answer.returncode == 2
    assert answer.stderr.startswith("mlfleet: tenant name ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [["tenant", "show"], ["tenant", "delete", "--yes"], ["token", "list"], ["wake"], ["sleep"]],
)
def test_an_unknown_tenant_is_exit_code_3(fleet, command):
    answer = fleet.run(*command, "nobody-here")
    assert answer.returncode == 3
    assert "nobody-here" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_limits_are_kept_and_shown(fleet):
    fleet.command("tenant", "create", "limited", "--concurrency", 3, "--memory", "256MiB")
    quota = fleet.command("tenant", "show", "limited")["quota"]
    assert quota["concurrency"] == 3
    assert quota["memory_bytes"] == 256 * 1024**2
    assert "256.0 MiB" in fleet.run("tenant", "show", "limited").stdout


def test_wake_and_sleep_change_what_status_says(fleet, tenant):
    def state() -> dict[str, object]:
        rows = fleet.command("status")["tenants"]
        return dict(next(row for row in rows if row["name"] == tenant["name"]))

    assert state()["state"] == "registered"
    assert fleet.command("wake", tenant["name"])["pid"] > 0
    awake = state()
    assert awake["state"] == "awake"
    assert awake["wakes"] == 1
    assert 0 < awake["last_wake_s"] < 30
    fleet.command("sleep", tenant["name"])
    assert state()["state"] == "asleep"
    assert state()["pid"] is None


def test_status_names_the_operators_way_into_the_database(fleet):
    database = fleet.command("status")["database"]
    assert database["admin_uri"].startswith("postgresql://")
    assert 0 < database["connections"] <= database["max_connections"]


def test_a_read_only_token_looks_but_does_not_write(fleet, tenant):
    made = fleet.command("token", "create", tenant["name"], "viewer", "--read-only")
    name, token = tenant["name"], made["token"]
    eventually(lambda: search(fleet, name, token) == 200)
    assert create_experiment(fleet, name, token, "e") == 403
    assert create_experiment(fleet, name, tenant["token"], "e") == 200


def test_a_token_ends_within_5_s_of_its_revocation_and_its_rotation(fleet, tenant):
    name = tenant["name"]
    old = fleet.command("token", "create", name, "ci")["token"]
    eventually(lambda: search(fleet, name, old) == 200)
    new = fleet.command("token", "rotate", name, "ci")["token"]
    eventually(lambda: search(fleet, name, old) == 401, within_s=5)
    eventually(lambda: search(fleet, name, new) == 200, within_s=5)
    fleet.command("token", "revoke", name, "ci")
    eventually(lambda: search(fleet, name, new) == 401, within_s=5)
    assert [token["name"] for token in fleet.command("token", "list", name)] == ["default"]
    assert fleet.run("token", "revoke", name, "ci").returncode == 3


def test_a_new_token_works_at_once_although_the_gateway_knows_the_tenant(fleet, tenant):
    for number in range(5):
        assert search(fleet, tenant["name"], tenant["token"]) == 200
        made = fleet.command("token", "create", tenant["name"], f"ci-{number}")
        assert search(fleet, tenant["name"], made["token"]) == 200


def test_a_token_that_is_there_is_not_made_again(fleet, tenant):
    fleet.command("token", "create", tenant["name"], "ci", "--expires-in", "12h")
    again = fleet.command("token", "create", tenant["name"], "ci")
    assert again["token"] is None
    assert again["created"] is False


def test_a_deleted_tenant_leaves_nothing_and_its_name_can_be_used_again(fleet, tenant):
    name = tenant["name"]
    assert create_experiment(fleet, name, tenant["token"], "e") == 200
    shown = fleet.command("tenant", "show", name)
    folder = fleet.data / "artifacts" / str(shown["id"])
    assert folder.is_dir()
    assert fleet.command("tenant", "delete", name, "--yes")["deleted"] is True
    assert not folder.exists()
    assert fleet.run("tenant", "show", name).returncode == 3
    eventually(lambda: search(fleet, name, tenant["token"]) == 404, within_s=5)
    again = fleet.command("tenant", "create", name)
    eventually(lambda: search(fleet, name, again["token"]) == 200)
    assert create_experiment(fleet, name, again["token"], "e") == 200


def test_deleting_asks_first_and_no_means_no(fleet, tenant):
    answer = fleet.run("tenant", "delete", tenant["name"], input="n\n")
    assert answer.returncode != 0
    assert fleet.run("tenant", "show", tenant["name"]).returncode == 0


def test_logs_shows_what_the_cell_said(fleet):
    lines = fleet.run("logs", "--cell", "--json").stdout.splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert lines


def test_doctor_finds_no_problem_on_a_running_fleet(fleet):
    document = fleet.command("doctor")
    verdicts = {finding["name"]: finding["verdict"] for finding in document["findings"]}
    for name in ("postgres", "template", "connections", "cell-0", "port"):
        assert verdicts[name] == "ok"
    assert document["problems"] == 0


def test_doctor_calls_a_dead_pooler_and_an_impossible_budget_problems(fleet, tmp_path):
    admin_uri = fleet.command("status")["database"]["admin_uri"]
    environment = {
        "MLFLEET_ADMIN_URI": admin_uri,
        "MLFLEET_POOLER_ADDRESS": "127.0.0.1:1",
        "MLFLEET_MAX_AWAKE": "100000",
        "MLFLEET_PORT": str(fleet.port),
        "PATH": "",
    }
    other = RunningFleet(tmp_path / "none", fleet.port, fleet.process, {})
    answer = other.run("doctor", "--json", env=environment)
    found = {
        f["name"]: f for f in json.loads(answer.stdout)["findings"] if f["verdict"] == "problem"
    }
    assert {"pooler", "connections", "open files", "port"} <= set(found)
    assert all(finding["mend"] for finding in found.values())
    assert answer.returncode == 1


def test_preparing_the_database_again_changes_nothing(fleet):
    assert fleet.command("database", "prepare")["ready"] is True


@pytest.mark.parametrize("form", ["folder", "file.tar"])
def test_a_backup_of_an_awake_tenant_restores_under_another_name(fleet, tenant, tmp_path, form):
    name, target = tenant["name"], tmp_path / form
    _, run = fleet.call(name, tenant["token"], "runs/create", {"experiment_id": "0"})
    run_id = run["run"]["info"]["run_id"]
    row = {"run_id": run_id, "key": "loss", "value": 0.5, "timestamp": 1, "step": 3}
    assert fleet.call(name, tenant["token"], "runs/log-metric", row)[0] == 200
    assert fleet.command("tenant", "backup", name, target)["file_count"] >= 1
    restored = fleet.command("tenant", "restore", target, "--as", f"{name}-copy")
    _, copy = fleet.call(f"{name}-copy", restored["token"], f"runs/get?run_id={run_id}")
    [metric] = copy["run"]["data"]["metrics"]
    assert (metric["key"], metric["value"], metric["step"]) == ("loss", 0.5, 3)
    again = fleet.run("tenant", "restore", target)
    assert again.returncode == 1
    assert "exists" in again.stderr
