"""What a person sees in the terminal while a run runs: one line a second, written over."""

import sys
from collections.abc import Callable

import gevent  # type: ignore[import-untyped]

from mlfleet.load.swarm.run import clock

EVERY_S = 1.0
EVERY_IN_A_FILE_S = 10.0
"""Where the output is a file a line cannot be written over."""


def show(line: Callable[[float], str]) -> gevent.Greenlet:
    """Show the line until the greenlet is killed."""
    return gevent.spawn(_on_a_terminal if sys.stderr.isatty() else _in_a_file, line)


def _on_a_terminal(line: Callable[[float], str]) -> None:
    try:
        while True:
            gevent.sleep(EVERY_S)
            sys.stderr.write(f"\r\033[K{line(clock())}")
            sys.stderr.flush()
    finally:
        sys.stderr.write("\n")
        sys.stderr.flush()


def _in_a_file(line: Callable[[float], str]) -> None:
    while True:
        gevent.sleep(EVERY_IN_A_FILE_S)
        sys.stderr.write(f"{line(clock())}\n")
        sys.stderr.flush()
