"""The connection budget is a sum, checked against its parts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.database.budget import Budget
from mlfleet.errors import BudgetError

small = st.integers(1, 500)


@given(small, small, st.integers(0, 10), small, st.integers(1, 5), st.integers(0, 5))
def test_holds_exactly_when_the_worst_moment_fits(
    limit: int, awake: int, reserved: int, catalogue: int, cells: int, operator: int
) -> None:
    budget = Budget(limit, reserved, awake, catalogue, cells, operator)
    worst = sum(awake + catalogue for _ in range(cells)) + operator + reserved
    if worst <= limit:
        budget.check()
    else:
        with pytest.raises(BudgetError, match=f"= {worst} of max_connections = {limit}"):
            budget.check()


@given(st.integers(20, 2000), st.integers(100, 3000), st.integers(1, 4))
def test_the_advice_in_the_error_works(limit: int, awake: int, cells: int) -> None:
    try:
        Budget(limit, 3, awake, 8, cells).check()
    except BudgetError as refused:
        words = str(refused).split()
        if "MLFLEET_MAX_AWAKE" in words:
            Budget(limit, 3, int(words[words.index("to") + 1]), 8, cells).check()
        Budget(int(words[-1]), 3, awake, 8, cells).check()


@pytest.mark.parametrize("part", ["awake", "catalogue_connections", "cells"])
def test_nothing_of_a_kind_is_refused(part: str) -> None:
    parts = {"awake": 1, "catalogue_connections": 1, "cells": 1, part: 0}
    with pytest.raises(BudgetError, match="waits for ever"):
        Budget(max_connections=100, reserved=3, **parts).check()
