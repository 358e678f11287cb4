"""The images' locks hold what the package asks for; slim.py deletes no more than it says."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_THE_IMAGE = {"gunicorn"}
"""Pinned for a full installation only; the image has no web server but uvicorn."""


def wanted(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return {re.split(r"[<>=!~\[ ]", line)[0].lower() for line in lines} - NOT_IN_THE_IMAGE


def locked(name: str) -> set[str]:
    text = (ROOT / "mlflow-service" / name).read_text()
    return set(re.findall(r"^([a-z0-9.-]+)==", text, flags=re.M))


def test_the_locks_hold_what_the_package_asks_for() -> None:
    cell = locked("requirements.lock")
    assert wanted("cell", "s3") - cell == set(), "run make lock"
    assert wanted("cluster") - cell - locked("requirements-operator.lock") == set(), "run make lock"


@pytest.mark.parametrize("heavy", ["pandas", "numpy", "pyarrow", "scipy", "scikit-learn", "docker"])
def test_the_image_is_lean(heavy: str) -> None:
    assert heavy not in locked("requirements.lock") | locked("requirements-operator.lock")


def test_slim_deletes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    site = "lib/python3.11/site-packages"
    go = [
        f"{site}/mlflow/server/js/main.js.map",
        f"{site}/botocore/data/ec2/2016/service.json",
        f"{site}/sqlalchemy/fast.pyx",
        f"{site}/six/tests/test_it.py",
    ]
    stay = [
        f"{site}/mlflow/server/js/main.js",
        f"{site}/botocore/data/s3/2006/service.json",
        f"{site}/botocore/data/endpoints.json",
        f"{site}/mlflow/testing/tests/deep.py",
    ]
    for name in go + stay:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    slim = runpy.run_path(str(ROOT / "mlflow-service" / "slim.py"))
    for path in list(slim["useless"](tmp_path)):
        if path.exists():
            slim["delete"](path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(stay)
