"""What stands in for `alembic`, which an instance never uses: it neither checks nor moves schemas.

MLflow's store imports two names of it with itself; with them come Mako and Pygments, a tenth of
the zygote's import. A call that would need them fails with a sentence instead of half working.
"""

from types import ModuleType
from typing import Any, NoReturn


class Absent:
    """A class of alembic's that nothing may use here."""

    @classmethod
    def _refuse(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise RuntimeError(
            "schemas are checked and moved by `mlfleet database`, not by an instance"
        )

    __init__ = configure = from_config = _refuse


def stand_ins() -> dict[str, ModuleType]:
    """Return the modules to be found instead of alembic's."""
    modules = {
        name: ModuleType(name) for name in ("alembic", "alembic.migration", "alembic.script")
    }
    vars(modules["alembic.migration"])["MigrationContext"] = Absent
    vars(modules["alembic.script"])["ScriptDirectory"] = Absent
    return modules
