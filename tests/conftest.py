"""Fixtures that every test may use; each group lives in a file of its own."""

import signal

pytest_plugins = ["tests.fixtures_postgres", "tests.fixtures_gateway", "tests.fixtures_fleet"]

# A shell starts what runs in its background with SIGINT ignored, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
