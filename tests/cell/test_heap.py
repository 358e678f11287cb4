"""The heap of a zygote: holes are found and filled."""

import subprocess
import sys

from mlfleet.cell import heap

EXPERIMENT = """
from mlfleet.cell import heap

things = [object() for _ in range(200_000)]
del things[::2]
before = sum(heap.free_places(heap._statistics()).values())
taken = heap.fill_holes()
after = sum(heap.free_places(heap._statistics()).values())
print(before, taken, after)
"""


def test_filling_leaves_hardly_a_place_free() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", EXPERIMENT], capture_output=True, text=True, check=True
    )
    before, taken, after = map(int, ran.stdout.split())
    assert before > 100_000
    assert taken > 16 * 100_000
    assert after < before / 20


def test_statistics_of_another_form_are_no_holes() -> None:
    assert heap.free_places("something else entirely\n") == {}
