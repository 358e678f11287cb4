"""Which kinds of users there are, and how many of each: `training=6,llm=1`."""

from collections.abc import Collection

from mlfleet.errors import FleetError

KINDS = ("training", "llm", "sweep", "dashboard", "registry", "seed")
DEFAULT = "training=6,llm=1,sweep=2,dashboard=3,registry=1"


def parse_mix(text: str, kinds: Collection[str]) -> dict[str, float]:
    """Return the weight of each kind that is named, those of weight 0 left out.

    Raises:
        FleetError: it cannot be understood.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        kind, equals, number = (piece.strip() for piece in part.partition("="))
        if kind not in kinds:
            raise FleetError(f"--mix: there is no user {kind!r}: choose {', '.join(kinds)}")
        if kind in weights:
            raise FleetError(f"--mix: {kind!r} is there twice")
        weights[kind] = _weight(number) if equals else 1.0
    chosen = {kind: weight for kind, weight in weights.items() if weight}
    if not chosen:
        raise FleetError(f"--mix {text}: no user is left when all weights are 0")
    return chosen


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < 1e9:
        raise FleetError(f"--mix: {text!r} is no weight: write a number from 0")
    return weight
