"""`mlfleet load --help` is quick: it names all commands and imports nothing heavy."""

import json
import subprocess
import sys

from mlfleet.cli.load import COMMANDS

PROGRAM = """
import json, sys
from mlfleet.cli import command
command.main(["load", "--help"], standalone_mode=False)
heavy = {"sqlalchemy", "psycopg2", "locust", "gevent", "mlflow", "matplotlib", "numpy"}
print(json.dumps(sorted(heavy & sys.modules.keys())))
"""


def test_help_names_every_command_and_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    *lines, imported = done.stdout.splitlines()
    listed = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :] if line.strip()]
    assert listed == list(COMMANDS)
    assert json.loads(imported) == []
