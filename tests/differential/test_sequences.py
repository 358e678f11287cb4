"""Random sequences of calls: two servers, one behaviour.

MLFLEET_DIFFERENTIAL=long multiplies the number of sequences; `make test-long` sets it. A failing
sequence is printed as it was found; MLFLEET_DIFFERENTIAL=shrink takes minutes to make it short.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.differential.machine_genai import GenAI
from tests.differential.machine_registry import Registry
from tests.differential.machine_tracking import Tracking
from tests.differential.pair import Pair

FORM = os.environ.get("MLFLEET_DIFFERENTIAL", "short")
TIMES = 8 if FORM == "long" else 1
PHASES = (Phase.generate, Phase.shrink) if FORM == "shrink" else (Phase.generate,)


@pytest.mark.parametrize(
    ("machine", "sequences", "least"),
    [(Tracking, 12, 360), (Registry, 5, 150), (GenAI, 5, 150)],
)
def test_every_sequence_gets_equal_answers(
    pair: Pair, machine: type[RuleBasedStateMachine], sequences: int, least: int
) -> None:
    before = pair.steps
    run_state_machine_as_test(
        type(machine.__name__, (machine,), {"pair": pair}),
        settings=settings(
            max_examples=sequences * TIMES,
            stateful_step_count=40,
            derandomize=FORM != "long",
            phases=PHASES,
            database=None,
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert pair.steps - before >= least * TIMES
