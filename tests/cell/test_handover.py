"""What one cell tells another of a request: signed, for that cell alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfleet.cell.handover import Handover, seal, unseal
from mlfleet.cell.neighbours import Addresses
from mlfleet.cell.outside import Outside
from mlfleet.errors import FleetError, ForbiddenError, NoCapacityError

KEY = "k" * 64
PAPERS = Handover("cell-0", "cell-1", "demo", Outside("demo.example.test:80", "https", "1.2.3.4"))


@given(
    host=st.text(max_size=50), scheme=st.sampled_from(["http", "https"]), own=st.text(max_size=9)
)
def test_what_was_sealed_is_read(host: str, scheme: str, own: str) -> None:
    papers = Handover("cell-0", "cell-1", own, Outside(host, scheme, "::1"))
    assert unseal(seal(papers, KEY), KEY, "cell-1") == papers


@given(position=st.integers(0, 400), letter=st.sampled_from("aA0_"))
def test_no_letter_of_it_can_be_changed(position: int, letter: str) -> None:
    sealed = seal(PAPERS, KEY)
    position %= len(sealed)
    forged = sealed[:position] + letter + sealed[position + 1 :]
    if forged != sealed:
        with pytest.raises(ForbiddenError):
            unseal(forged, KEY, "cell-1")


@pytest.mark.parametrize("text", ["", ".", "e30=.", "e30=", "ü.ü", "a.b.c"])
def test_what_no_cell_wrote_is_refused(text: str) -> None:
    with pytest.raises(ForbiddenError, match="for the cells of this fleet to write"):
        unseal(text, KEY, "cell-1")


def test_another_fleets_key_and_another_cell_are_refused() -> None:
    with pytest.raises(ForbiddenError):
        unseal(seal(PAPERS, "other"), KEY, "cell-1")
    with pytest.raises(ForbiddenError, match="handed over to cell 'cell-1', not 'cell-2'"):
        unseal(seal(PAPERS, KEY), KEY, "cell-2")


def test_addresses_are_a_pattern_or_named() -> None:
    pattern = Addresses("http://{cell}.mlfleet.svc.cluster.local")
    name = "cell-7.mlfleet.svc.cluster.local"
    assert pattern.of("cell-7") == (name, 80, name)
    named = Addresses("a=http://10.0.0.1:81, b=http://10.0.0.2")
    assert named.of("a") == ("10.0.0.1", 81, "10.0.0.1:81")
    assert named.of("b").port == 80
    with pytest.raises(NoCapacityError, match="cell 'c' is not known here"):
        named.of("c")


@pytest.mark.parametrize(
    "text", ["cell-0", "https://{cell}", "http://x", "a=b", "http://{cell}/path", "http://{cell}:x"]
)
def test_an_address_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(FleetError, match="MLFLEET_CELL_ADDRESS="):
        Addresses(text)
