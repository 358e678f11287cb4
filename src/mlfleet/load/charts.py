"""Charts as SVG inside a page: axes and lines only, in colours that the page decides.

Titles, units and legends are the page's own text. Every colour here is a sentinel that becomes
a variable of CSS, so that one drawing is legible on light, on dark and on paper.
"""

import dataclasses
import io
import math
import re
from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLOURS = ("blue", "orange", "green", "purple", "red", "teal", "pink", "grey")
ROLE_COLOURS = {
    "gateway": "orange",
    "zygote": "pink",
    "instance": "blue",
    "Postgres": "green",
    "supervisor": "grey",
    "stock": "blue",
    "locust": "purple",
    "sampler": "teal",
}
_INK, _GRID = "#0a0b0c", "#0a0b0d"
_SENTINELS = {f"#0a0c{number:02x}": name for number, name in enumerate(COLOURS)}
_SENTINEL_OF = {name: sentinel for sentinel, name in _SENTINELS.items()}
_VARIABLE = {_INK: "ink", _GRID: "grid", **_SENTINELS}
_SIZE_IN = (5.8, 2.2)
_X_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
_LEAST_POWER = -3
"""Of ten, at the foot of a logarithmic axis: a wait of nothing is drawn as a millisecond."""
_RARE = 25
"""So many marks of one kind are lines from top to bottom; more are ticks at the top."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart."""

    label: str
    values: Sequence[float | None]
    colour: str
    is_thin: bool = False
    is_dashed: bool = False
    seconds: Sequence[float] | None = None
    """Where it has other times than the chart."""

    @property
    def has_values(self) -> bool:
        """Whether there is anything to draw."""
        return any(value is not None for value in self.values)


@dataclasses.dataclass(frozen=True)
class Mark:
    """One moment that all charts show."""

    second: float
    kind: str
    colour: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart of a report."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    seconds: Sequence[float]
    is_stack: bool = False
    is_log: bool = False
    is_steps: bool = False
    limit: float | None = None
    limit_label: str = ""
    label: Callable[[float], str] = lambda value: f"{value:g}"
    """How the vertical axis writes a value."""
    empty: str = "nothing to show"

    @property
    def shown(self) -> tuple[Line, ...]:
        """The lines that have values."""
        return tuple(line for line in self.lines if line.has_values)


def draw(chart: Chart, name: str, marks: Sequence[Mark] = ()) -> str:
    """Return a chart as an SVG element.

    Args:
        chart: has at least one line with values.
        name: unique on the page.
        marks: moments shown as vertical lines.
    """
    figure = Figure(figsize=_SIZE_IN)
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.115, 0.14, 0.865, 0.82))
    _frame(axes)
    if chart.is_stack:
        _stack(axes, chart)
    else:
        _lines(axes, chart)
    _scale(axes, chart)
    if chart.limit is not None:
        colour = _SENTINEL_OF["red"]
        axes.axhline(chart.limit, color=colour, linewidth=1, linestyle=(0, (4, 3)), zorder=4)
    _mark(axes, marks)
    return _svg(figure, name, chart)


def _frame(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.grid(True, color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0, labelsize=8.5, colors=_INK, pad=4)
    # The lowest label of one axis stands beside the first of the other.
    axes.tick_params(axis="x", pad=7)


def _lines(axes: Axes, chart: Chart) -> None:
    for line in chart.shown:
        least = 10.0**_LEAST_POWER if chart.is_log else -math.inf
        values = [math.nan if value is None else max(value, least) for value in line.values]
        axes.plot(
            line.seconds or chart.seconds,
            values,
            color=_SENTINEL_OF[line.colour],
            linewidth=1.1 if line.is_thin or line.is_dashed else 1.7,
            linestyle=(0, (3, 2)) if line.is_dashed else "-",
            drawstyle="steps-mid" if chart.is_steps else "default",
            solid_capstyle="round",
            # A value between two gaps has no line.
            marker="o" if _has_lonely(line.values) else None,
            markersize=2.4,
            zorder=3,
        )


def _has_lonely(values: Sequence[float | None]) -> bool:
    padded = [None, *values, None]
    return any(
        value is not None and padded[at] is None and padded[at + 2] is None
        for at, value in enumerate(values)
    )


def _stack(axes: Axes, chart: Chart) -> None:
    filled = [line for line in chart.shown if not line.is_dashed]
    columns = zip(*(line.values for line in filled), strict=True)
    gaps = [all(value is None for value in column) for column in columns]
    axes.stackplot(
        chart.seconds,
        [_filled(line, gaps) for line in filled],
        colors=[_SENTINEL_OF[line.colour] for line in filled],
        alpha=0.75,
        linewidth=0,
        zorder=2,
    )
    _lines(axes, dataclasses.replace(chart, lines=tuple(x for x in chart.lines if x.is_dashed)))


def _filled(line: Line, gaps: Sequence[bool]) -> list[float]:
    """Return the values of a part of a stack: nothing where others have something."""
    pairs = zip(line.values, gaps, strict=True)
    return [math.nan if is_gap else value or 0.0 for value, is_gap in pairs]


def _scale(axes: Axes, chart: Chart) -> None:
    end = chart.seconds[-1] + chart.seconds[0]
    axes.set_xlim(0, end)
    step = next((step for step in _X_STEPS_S if end / step <= 8), _X_STEPS_S[-1])
    axes.xaxis.set_major_locator(FixedLocator([at * step for at in range(int(end / step) + 1)]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _clock(value)))
    if chart.is_log:
        _log_scale(axes, chart)
    else:
        most = max(_most(chart), chart.limit or 0.0)
        axes.set_ylim(0, most * 1.08 if most else 1)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: chart.label(value)))


def _most(chart: Chart) -> float:
    if not chart.is_stack:
        return max(value for line in chart.shown for value in line.values if value is not None)
    filled = [line.values for line in chart.shown if not line.is_dashed]
    sums = [sum(value or 0.0 for value in column) for column in zip(*filled, strict=True)]
    dashed = [v or 0.0 for line in chart.shown if line.is_dashed for v in line.values]
    return max([*sums, *dashed], default=0.0)


def _log_scale(axes: Axes, chart: Chart) -> None:
    values = [value for line in chart.shown for value in line.values if value]
    values += [chart.limit] if chart.limit else []
    low = max(_LEAST_POWER, math.floor(math.log10(min(values)))) if values else _LEAST_POWER
    high = math.ceil(math.log10(max(values))) if values else 0
    high = max(high, low + 1)
    axes.set_yscale("log")
    axes.set_ylim(10**low, 10**high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low <= 2 else (1,)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _mark(axes: Axes, marks: Sequence[Mark]) -> None:
    kinds = [mark.kind for mark in marks]
    for mark in marks:
        bottom = 0.0 if kinds.count(mark.kind) <= _RARE else 0.94
        axes.axvline(
            mark.second,
            ymin=bottom,
            color=_SENTINEL_OF[mark.colour],
            linewidth=1.0,
            alpha=0.8,
            zorder=1.5 if bottom == 0 else 5,
        )


def _svg(figure: Figure, name: str, chart: Chart) -> str:
    text = io.StringIO()
    # Text stays text, and the same figures always make the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Ids are unique within a drawing only.
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    for sentinel, variable in _VARIABLE.items():
        svg = svg.replace(sentinel, f"var(--{variable})")
    # The page's own typeface, at the size that was drawn.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font: \1 var(--face)", svg)
    described = f'role="img" aria-label="{_plain(chart)}"'
    return re.sub(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>', rf'<svg viewBox="\1" {described}>', svg)


def _plain(chart: Chart) -> str:
    names = ", ".join(line.label for line in chart.shown)
    return f"{chart.title} over time: {names}".replace('"', "'").replace("<", "")


def seconds_label(value: float) -> str:
    """Return a latency on an axis."""
    return f"{value:g} s" if value >= 1 else f"{value * 1000:g} ms"
