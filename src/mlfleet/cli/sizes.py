"""Sizes as people type them: 512MiB, 2GiB, or plain bytes."""

import re

import click

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?", re.IGNORECASE)
_BYTES = {"b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "tib": 1024**4}


class Size(click.ParamType[int]):
    """A number of bytes."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the bytes."""
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is not a size such as 512MiB or 2GiB", param, ctx)
        return round(float(match[1]) * _BYTES[(match[2] or "B").lower()])
