"""The inside of an instance on a TCP port: store, hot route and MLflow's application, no gateway.

The quickest second side: it starts in two seconds, and whatever differs here differs for a tenant.
`python -m tests.differential.hot_server PORT ARTIFACT_ROOT` with a JSON description of the
database (the fields of `DatabaseAccess`) in HOT_SERVER_DATABASE.
"""

import json
import os
import sys

import uvicorn

from mlfleet.cell import application
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.threads import Threads
from mlfleet.database.access import DatabaseAccess


def main(port: str, artifact_root: str) -> None:
    """Serve until SIGTERM."""
    application.prepare_environment()
    config = InstanceConfig(
        tenant="hot",
        database=DatabaseAccess(**json.loads(os.environ["HOT_SERVER_DATABASE"])),
        artifact_root=artifact_root,
        kek_passphrase="a passphrase of thirty-two bytes",
        memory_bytes=2**30,
        artifact_bytes=0,
        database_idle_s=5.0,
        database_wait_s=20.0,
    )
    app = application.assemble(Threads(application.THREADS))
    connection = application.use_store(config)
    from mlfleet.store.hot import HotCalls

    uvicorn.run(
        HotCalls(app, connection),
        host="127.0.0.1",
        port=int(port),
        http="httptools",
        loop="uvloop",
        lifespan="off",
        log_level="warning",
        server_header=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
