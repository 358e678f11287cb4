"""One instance without gateway and confinement: `python -m tests.store.serve PORT CONFIG`.

CONFIG is a StoreConfig as JSON. Paths under /stock skip the hot writes, so a test can ask both
ways of one server; the rest of the application is the cell's.
"""

import json
import sys
from typing import Any

from mlfleet.cell import application


def main(port: int, config: str) -> None:
    """Serve until terminated."""
    application.prepare_environment()
    import uvicorn

    from mlfleet.cell.threads import Threads
    from mlfleet.database.access import DatabaseAccess
    from mlfleet.store.hot import HotCalls
    from mlfleet.store.installation import StoreConfig, install

    fields = json.loads(config)
    store = StoreConfig(**{**fields, "database": DatabaseAccess(**fields["database"])})
    connection = install(store)
    stock = application.assemble(Threads(8))
    hot = HotCalls(stock, connection)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/stock/"):
            path = scope["path"].removeprefix("/stock")
            scope = {**scope, "path": path, "raw_path": path.encode()}
            await hot.app(scope, receive, send)
        elif scope["type"] == "http":
            await hot(scope, receive, send)

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
