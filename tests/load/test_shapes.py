"""Shapes: how many users there are at each moment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.errors import FleetError
from mlfleet.load.shapes import SHAPES, Plan, users_at

users = st.integers(1, 20_000)
runs = st.floats(1, 7200)
progress = st.floats(0, 0.999)


@given(shape=st.sampled_from(SHAPES), users=users, run_s=runs, share=progress)
def test_there_is_always_somebody_and_never_more_than_asked_for(
    shape: str, users: int, run_s: float, share: float
) -> None:
    counted = users_at(Plan(shape, users, run_s), share * run_s)
    assert counted is not None
    assert 1 <= counted <= users


@given(shape=st.sampled_from(SHAPES), users=users, run_s=runs, extra=st.floats(0, 100))
def test_a_run_ends_when_its_time_is_over(
    shape: str, users: int, run_s: float, extra: float
) -> None:
    assert users_at(Plan(shape, users, run_s), run_s + extra) is None


@given(shape=st.sampled_from(["ramp", "step"]), users=users, a=progress, b=progress)
def test_ramp_and_step_never_fall(shape: str, users: int, a: float, b: float) -> None:
    plan = Plan(shape, users, 1.0)
    early, late = (users_at(plan, t) for t in sorted((a, b)))
    assert early is not None
    assert late is not None
    assert early <= late


def test_each_shape_at_the_moments_that_make_it() -> None:
    def at(shape: str, *moments: float) -> list[int | None]:
        return [users_at(Plan(shape, 1000, 100), t) for t in moments]

    assert at("steady", 0, 50, 99) == [1000, 1000, 1000]
    assert at("ramp", 0, 50, 99) == [100, 550, 991]
    assert at("step", 0, 19, 20, 99) == [200, 200, 400, 1000]
    assert at("spike", 39, 40, 59, 60) == [200, 1000, 1000, 200]
    assert at("diurnal", 0, 50, 99.9) == [100, 1000, 100]
    assert at("storm", 0, 99) == [1000, 1000]


@pytest.mark.parametrize(
    ("shape", "users", "run_s", "problem"),
    [
        ("wave", 1, 1.0, "choose steady, ramp"),
        ("ramp", 0, 1.0, "choose 1 or more"),
        ("ramp", 1, 0.0, "choose more than 0"),
        ("ramp", 1, float("nan"), "choose more than 0"),
    ],
)
def test_what_is_no_plan_is_refused(shape: str, users: int, run_s: float, problem: str) -> None:
    with pytest.raises(FleetError, match=problem):
        Plan(shape, users, run_s)
