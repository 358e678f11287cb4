"""Figures as people read them: three digits that matter, and a unit.

Pure. None, which is what was not measured, is a dash everywhere.
"""

NOTHING = "-"


def latency(seconds: float | None) -> str:
    """Return 4.21 ms, 123 ms, 1.23 s, 74.2 s."""
    if seconds is None:
        return NOTHING
    return f"{_three(seconds)} s" if seconds >= 0.9995 else f"{_three(seconds * 1000)} ms"


def count(number: float | None) -> str:
    """Return 12,345."""
    return NOTHING if number is None else f"{number:,.0f}"


def count_label(number: float) -> str:
    """Return a number on an axis."""
    return count(number) if number >= 1000 else f"{number:g}"


def rate(per_s: float | None) -> str:
    """Return 412/s, 3.21/s."""
    return NOTHING if per_s is None else f"{_three(per_s)}/s"


def share(part: float | None) -> str:
    """Return 12.3 %; what is above zero never reads as zero."""
    if part is None:
        return NOTHING
    percent = part * 100
    return "< 0.01 %" if 0 < percent < 0.01 else f"{_three(percent)} %"


def size(number: float | None) -> str:
    """Return 512 B, 19.4 MiB, 2.13 GiB."""
    if number is None:
        return NOTHING
    for unit in ("B", "KiB", "MiB"):
        if abs(number) < 1000:
            return f"{_three(number)} {unit}"
        number /= 1024
    return f"{_three(number)} GiB"


def cores(number: float | None) -> str:
    """Return 0.312 cores."""
    return NOTHING if number is None else f"{_three(number)} cores"


def duration(seconds: float) -> str:
    """Return 45 s, 2 min, 10 min 30 s, 1 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{number} {unit}" for number, unit in parts if number) or "0 s"


def status(text: str) -> str:
    """Return a status of HTTP as people know it; 0 is a try without an answer."""
    return "no answer" if text == "0" else f"HTTP {text}"


def _three(number: float) -> str:
    if number == 0:
        return "0"
    size = abs(number)
    if size >= 99.95:
        return count(number)
    return (
        f"{number:.1f}" if size >= 9.995 else f"{number:.2f}" if size >= 0.01 else f"{number:.1g}"
    )
