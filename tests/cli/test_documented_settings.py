"""docs/operations.md lists every setting with its default."""

import dataclasses
import re
from pathlib import Path

from mlfleet.settings import Settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_table_has_every_setting_and_no_other_and_the_defaults_agree():
    rows = re.findall(r"^\| `(MLFLEET_\w+)` \| (?:`(.*?)`)? ?\|", DOCUMENT.read_text(), re.M)
    settings = {
        f"MLFLEET_{field.name.upper()}": "" if field.default is None else str(field.default)
        for field in dataclasses.fields(Settings)
    }
    settings["MLFLEET_DATA"] = "./.mlfleet"
    assert dict(rows) == settings
