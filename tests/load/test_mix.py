"""A mix says how many users of each kind there are."""

import pytest

from mlfleet.errors import FleetError
from mlfleet.load.mix import DEFAULT, KINDS, parse_mix


def test_weights_are_taken_as_they_are_and_a_kind_without_one_counts_once() -> None:
    assert parse_mix("training=6, llm=0.5 ,seed", KINDS) == {"training": 6, "llm": 0.5, "seed": 1}


def test_a_kind_of_weight_0_is_left_out() -> None:
    assert parse_mix("training=0,seed=2", KINDS) == {"seed": 2}


def test_the_default_names_kinds_that_there_are() -> None:
    assert set(parse_mix(DEFAULT, KINDS)) == set(KINDS) - {"seed"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is no user ''"),
        ("trainings=1", "there is no user 'trainings': choose training, llm"),
        ("seed=1,seed=2", "'seed' is there twice"),
        ("seed=x", "'x' is no weight"),
        ("seed=-1", "'-1' is no weight"),
        ("seed=nan", "'nan' is no weight"),
        ("seed=inf", "'inf' is no weight"),
        ("seed=", "'' is no weight"),
        ("seed=0", "no user is left"),
    ],
)
def test_what_is_no_mix_is_refused(text: str, problem: str) -> None:
    with pytest.raises(FleetError) as refused:
        parse_mix(text, KINDS)
    assert problem in str(refused.value)
