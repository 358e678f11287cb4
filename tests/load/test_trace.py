"""A trace is read, checked and turned into the times of calls."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.errors import FleetError
from mlfleet.load.trace import Trace, burst, csv_of, trace_of

gaps = st.floats(0.1, 100)
rates = st.floats(0, 200)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    lengths = draw(st.lists(gaps, min_size=1, max_size=8))
    times = list(itertools.accumulate(lengths, initial=0.0))
    lines = [f"{t!r},{draw(rates)!r}" for t in times[:-1]] + [f"{times[-1]!r},50"]
    return trace_of("\n".join(["t_s,rate", *lines]), "test")


@given(trace=traces(), share=st.floats(0, 0.999))
def test_the_time_of_a_call_is_where_that_many_calls_have_been_made(
    trace: Trace, share: float
) -> None:
    wanted = share * trace.calls
    time = trace.time_of(wanted)
    assert time is not None
    steps = 4000
    width = time / steps
    counted = sum(trace.rate((i + 0.5) * width) for i in range(steps)) * width
    assert counted == pytest.approx(wanted, rel=0.02, abs=0.2)


@given(trace=traces())
def test_later_calls_are_not_earlier(trace: Trace) -> None:
    times = [trace.time_of(call) for call in range(int(trace.calls))]
    assert None not in times
    assert times == sorted(times)  # type: ignore[type-var]
    assert trace.time_of(trace.calls) is None


@given(trace=traces())
def test_what_is_written_is_read_again(trace: Trace) -> None:
    assert trace_of(csv_of(trace), "again") == trace


def test_the_burst_is_low_then_jumps_within_seconds_then_falls_slowly() -> None:
    trace = burst()
    assert trace.rate(100) == 7
    assert trace.rate(186) == 35
    assert trace.rate(360) == 35
    assert 7 < trace.rate(480) < 35
    assert trace.rate(trace.length_s) == 7
    assert trace.rate(-1) == trace.rate(trace.length_s + 1) == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: a trace begins with the line t_s,rate"),
        ("0,1\n1,1", "line 1: a trace begins with the line t_s,rate"),
        ("t_s,rate\n0,1", "at least two points"),
        ("t_s,rate\n0,x\n1,1", "line 2: '0,x' is not two numbers"),
        ("t_s,rate\n0,1,2\n1,1", "line 2: '0,1,2' is not two numbers"),
        ("t_s,rate\n5,1\n6,1", "line 2: the first time must be 0"),
        ("t_s,rate\n0,1\n\n2,1\n2,3", "line 5: time 2 is not after 2"),
        ("t_s,rate\n0,-1\n2,1", "line 2: time and rate must be finite"),
        ("t_s,rate\n0,1\nnan,1", "line 3: time and rate must be finite"),
        ("t_s,rate\n0,1\n2,inf", "line 3: time and rate must be finite"),
        ("t_s,rate\n0,0\n2,0", "a rate above 0"),
    ],
)
def test_a_bad_file_is_refused_by_line(text: str, problem: str) -> None:
    with pytest.raises(FleetError, match=r"calls\.csv") as refused:
        trace_of(text, "calls.csv")
    assert problem in str(refused.value)


def test_a_burst_that_is_none_is_refused() -> None:
    with pytest.raises(FleetError, match="low <= high"):
        burst(35, 7)
