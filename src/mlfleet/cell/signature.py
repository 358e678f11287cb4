"""What stands in for `mlflow.models.signature`, which needs numpy and pandas.

`runs/log-model` parses the model it is given and keeps five of its fields; the signature is not
among them, so it only has to come through unharmed. Everything else that MLflow's module offers
is missing here, and its import fails as it does in an installation without numpy.
"""

from typing import Any, Self


class ModelSignature:
    """A signature that is carried, not understood."""

    _is_signature_from_type_hint = False
    _is_type_hint_from_example = False

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Take a signature as JSON has it."""
        return cls(fields)

    def to_dict(self) -> dict[str, Any]:
        """Return what was taken."""
        return self._fields
