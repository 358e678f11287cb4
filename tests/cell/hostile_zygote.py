"""A real zygote whose instances run attacks on request, after they were confined as always.

Only what a tenant would be served is replaced (MLflow by `attacks.py`): fork, descriptors, user
and confinement are the product's. `--unconfined` leaves the confinement out, to show that an
attack works where nothing stops it. Arguments: [--unconfined] paths… -- descriptor.
"""

import json
import sys
from typing import Any

divider = sys.argv.index("--")
sys.path[:0] = [path for path in sys.argv[1:divider] if path != "--unconfined"]

from mlfleet.cell import instance, warming, zygote  # noqa: E402

# isort: split
import attacks  # noqa: E402


async def application(scope: Any, receive: Any, send: Any) -> None:
    message = await receive()
    order = json.loads(message["body"])
    answer = json.dumps(attacks.perform(order["attack"], order["arguments"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    import psycopg2  # noqa: F401
    import uvicorn.protocols.http.httptools_impl  # noqa: F401
    import uvloop  # noqa: F401

    warming.warm = lambda database: lambda config: application  # type: ignore[assignment]
    if "--unconfined" in sys.argv[:divider]:
        instance.confine = lambda config, folder, uid: None
    sys.argv[1:] = sys.argv[divider + 1 :]
    zygote.main()
