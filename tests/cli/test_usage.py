"""The command by itself: help, usage errors, exit codes; no fleet runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mlfleet.cli import COMMANDS
from tests.fixtures_postgres import free_port

MLFLEET = Path(sys.executable).with_name("mlfleet")


def mlfleet(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MLFLEET, *map(str, arguments)], capture_output=True, text=True, check=False, **options
    )


def test_help_names_every_command_and_the_exit_codes():
    text = mlfleet("--help").stdout
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "4 no fleet is running" in " ".join(text.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    answer = mlfleet(name, "--help")
    assert answer.returncode == 0
    assert answer.stderr == ""


def test_help_is_quick_because_nothing_heavy_is_imported():
    code = """
import sys, click, mlfleet.cli as cli
for cluster in (False, True):
    ctx = click.Context(cli.command)
    ctx.params["cluster"] = cluster
    for name in cli.command.list_commands(ctx):
        assert cli.command.get_command(ctx, name), name
heavy = {"sqlalchemy", "mlflow", "psycopg2", "alembic", "kubernetes", "kopf"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stderr, done.stdout.strip()) == ("", "[]")


@pytest.mark.parametrize(
    "command",
    [["status"], ["tenant", "list"], ["tenant", "create", "demo"], ["token", "list", "demo"],
     ["wake", "demo"], ["sleep", "demo"]],
)  # fmt: skip
def test_without_a_fleet_the_exit_code_is_4_and_the_error_one_line(command, tmp_path):
    answer = mlfleet(*command, "--data", tmp_path / "none")
    assert answer.returncode == 4
    assert answer.stdout == ""
    assert answer.stderr.startswith("mlfleet: there is no fleet in ")
    assert answer.stderr.count("\n") == 1
    assert "mlfleet up" in answer.stderr


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["tenant", "create"], "name a tenant"),
        (["token", "create", "a", "b", "--expires-in", "soon"], "12h or 30d"),
        (["tenant", "create", "x", "--memory", "much"], "512MiB"),
        (["logs"], "TENANT"),
        (["logs", "demo", "--cell"], "TENANT"),
        (["up", "--port", "0"], "port"),
        (["up", "--host", "0.0.0.0"], "--plain-http"),
        (["nonsense"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_is_right(command, word, tmp_path):
    answer = mlfleet(*command, *(["--data", tmp_path] if len(command) > 1 else []))
    assert answer.returncode == 2
    assert word in answer.stderr


def test_a_setting_of_the_wrong_form_is_refused_by_name(tmp_path):
    answer = mlfleet("up", "--data", tmp_path, env={"MLFLEET_MAX_AWAKE": "many", "PATH": ""})
    assert answer.returncode == 1
    assert answer.stderr == (
        "mlfleet: MLFLEET_MAX_AWAKE='many' is not a whole number: change or unset it\n"
    )


def test_a_budget_that_cannot_hold_is_refused_with_the_arithmetic(tmp_path):
    environment = {"MLFLEET_MAX_AWAKE": "200", "MLFLEET_MAX_CONNECTIONS": "100", "PATH": ""}
    answer = mlfleet("up", "--data", tmp_path / "d", "--port", free_port(), env=environment)
    assert answer.returncode == 1
    assert "200 awake" in answer.stderr
    assert "= 216 of max_connections = 100" in answer.stderr


def test_logs_of_a_tenant_that_wrote_none_and_of_a_name_that_leads_elsewhere(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "secret.log").write_text("secret\n")
    for name in ("demo", "../secret"):
        answer = mlfleet("logs", name, "--data", tmp_path)
        assert answer.returncode == 1
        assert answer.stdout == ""


def test_logs_prints_the_newest_lines_as_text_and_as_json(tmp_path):
    (tmp_path / "logs").mkdir()
    lines = ['{"event": "one"}', '{"event": "two"}', "no json"]
    (tmp_path / "logs" / "demo.log").write_text("\n".join(lines) + "\n")
    assert mlfleet("logs", "demo", "-n", 2, "--data", tmp_path).stdout.splitlines() == lines[1:]
    answer = mlfleet("logs", "demo", "-n", 2, "--json", "--data", tmp_path).stdout.splitlines()
    assert [json.loads(line) for line in answer] == [{"event": "two"}, {"text": "no json"}]


def test_doctor_without_a_fleet_looks_at_the_machine(tmp_path):
    answer = mlfleet("doctor", "--json", "--data", tmp_path / "d")
    document = json.loads(answer.stdout)
    names = [finding["name"] for finding in document["findings"]]
    assert {"data folder", "port", "open files", "landlock", "seccomp", "postgres"} <= set(names)
    assert answer.returncode == (1 if document["problems"] else 0)
