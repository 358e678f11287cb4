"""Routes that compile their URL builder late match and build as Werkzeug's own do."""

import subprocess
import sys

from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.routing import Map, Rule

from mlfleet.cell.rules import LazyRule, use_lazy_rules

PATHS = ("/", "/api/<name>/get", "/files/<path:path>", "/<int:page>", "/last/<int:page>")
TEXTS = st.text(
    # No halves of surrogate pairs: neither can write them.
    st.characters(exclude_characters="/", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
)


def adapter(kind: type[Rule]):
    rules = [kind(path, endpoint=path, methods=["GET"]) for path in PATHS]
    rules.append(kind("/last/", endpoint="/last/<int:page>", defaults={"page": 1}))
    return Map(rules).bind("localhost")


STOCK, LAZY = adapter(Rule), adapter(LazyRule)


@given(TEXTS, st.integers(0, 99), TEXTS)
def test_a_url_is_built_as_stock_builds_it(text, number, more):
    values = {"name": text, "path": text, "page": number, "more": more}
    for endpoint in PATHS:
        assert LAZY.build(endpoint, values) == STOCK.build(endpoint, values)
        only = {key: values[key] for key in ("name", "path", "page") if f"{key}>" in endpoint}
        assert LAZY.build(endpoint, only, append_unknown=False) == STOCK.build(
            endpoint, only, append_unknown=False
        )


def test_the_zygote_imports_mlflow_with_lazy_routes():
    program = """
from mlfleet.cell import application
from mlfleet.cell.rules import LazyRule
from mlfleet.cell.threads import Threads
application.prepare_environment()
import mlfleet.store.hot, mlfleet.store.installation
application.assemble(Threads(1))
from mlflow.server import app
kinds = {type(rule) for rule in app.url_map.iter_rules()}
assert kinds == {LazyRule}, kinds
"""
    subprocess.run([sys.executable, "-I", "-c", program], check=True, timeout=60)


def test_an_application_made_afterwards_has_lazy_routes(monkeypatch):
    monkeypatch.setattr(Flask, "url_rule_class", Rule)
    use_lazy_rules()
    app = Flask("test")
    app.add_url_rule("/<name>", "hello", lambda name: f"hello {name}")
    assert all(isinstance(rule, LazyRule) for rule in app.url_map.iter_rules())
    assert app.test_client().get("/you").text == "hello you"
