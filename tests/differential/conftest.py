"""The two servers of the differential suite, started once a session.

MLFLEET_DIFFERENTIAL_AGAINST chooses the second one: `fleet` (a tenant of a fleet, the default),
`hot` (our store and hot route in front of MLflow's application, no gateway), `stock` (stock against
stock, which shows that the suite itself sees no differences), or the path of a JSON file that
describes two running servers, `stock` and `other`, by the arguments of `Side`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.differential.exceptions import WrittenExceptions
from tests.differential.pair import Pair
from tests.differential.servers import fleet_tenant, hot_server, stock_server
from tests.differential.side import Side

AGAINST = os.environ.get("MLFLEET_DIFFERENTIAL_AGAINST", "fleet")


@pytest.fixture(scope="session")
def pair(postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Stock, and what has to equal it."""
    if AGAINST.endswith(".json"):
        described = json.loads(Path(AGAINST).read_text())
        sides = (Side(**described["stock"]), Side(**described["other"]))
        both = Pair(*sides, WrittenExceptions())
        yield both
        both.close()
        return
    folder: Path = tmp_path_factory.mktemp("differential")
    others = {
        "fleet": lambda: fleet_tenant(folder),
        "hot": lambda: hot_server(postgres, folder),
        "stock": lambda: stock_server(postgres, folder, "again", index=1),
    }
    with stock_server(postgres, folder, "stock") as stock, others[AGAINST]() as other:
        both = Pair(stock, other, WrittenExceptions())
        yield both
        both.close()
