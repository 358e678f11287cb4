"""Spans of time as people type them: 90s, 15m or 15min, 12h, 30d."""

import datetime
import re

import click

_DURATION = re.compile(r"(\d+)\s*(s|m|min|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[datetime.timedelta]):
    """A span of time such as 90min, 12h or 30d."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime.timedelta:
        """Return the span."""
        match = _DURATION.fullmatch(str(value))
        if match is None or int(match[1]) == 0:
            self.fail(f"{value!r} is not a time such as 90min, 12h or 30d", param, ctx)
        return datetime.timedelta(seconds=int(match[1]) * _SECONDS[match[2]])
