"""`mlfleet --cluster` without a cluster: each says in one line what is missing."""

import os
import subprocess
import sys
from pathlib import Path

MLFLEET = Path(sys.executable).with_name("mlfleet")


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **variables}
    return subprocess.run(
        [MLFLEET, "--cluster", *arguments], env=environment, capture_output=True, text=True
    )


def test_without_a_kubeconfig_it_says_what_to_set() -> None:
    said = run("tenant", "list")
    assert said.returncode == 1
    assert said.stderr.startswith("mlfleet: no cluster to speak with")
    assert "set KUBECONFIG" in said.stderr
    assert said.stderr.count("\n") == 1


def test_a_server_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        """{apiVersion: v1, kind: Config, current-context: x,
        clusters: [{name: x, cluster: {server: "http://127.0.0.1:9"}}],
        users: [{name: x, user: {}}],
        contexts: [{name: x, context: {cluster: x, user: x}}]}"""
    )
    said = run("tenant", "list", KUBECONFIG=str(config))
    assert said.returncode == 1
    assert "the API server does not answer" in said.stderr
    assert said.stderr.count("\n") == 1


def test_help_needs_no_cluster() -> None:
    said = run("tenant", "--help")
    assert said.returncode == 0
    assert "move" in said.stdout


def test_without_the_flag_the_commands_of_one_machine_remain() -> None:
    said = subprocess.run([MLFLEET, "--help"], capture_output=True, text=True)
    assert " up " in said.stdout
    assert " cell " not in said.stdout
