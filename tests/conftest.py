"""Fixtures that every test may use; each group lives in a file of its own."""

pytest_plugins = ["tests.fixtures_postgres", "tests.fixtures_gateway", "tests.fixtures_fleet"]
