"""The cell's admin API: HTTP and JSON on a Unix socket that only its owner can open.

Operators' commands (`mlfleet status`, `wake`, `sleep`, `tenant delete`) come here. Access is the
file mode of the socket; there is no other check.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from mlfleet.cell.answers import refusal
from mlfleet.cell.gateway import Gateway
from mlfleet.cell.instances import Instance
from mlfleet.cell.tenants import Tenants
from mlfleet.cell.waking import Instances
from mlfleet.errors import FleetError


class Admin:
    """Handlers of the admin API."""

    def __init__(self, cell: str, gateway: Gateway, tenants: Tenants, instances: Instances) -> None:
        self._cell = cell
        self._gateway = gateway
        self._tenants = tenants
        self._instances = instances

    def application(self) -> web.Application:
        """Return the application to serve."""
        application = web.Application(middlewares=[_explain])
        application.router.add_get("/status", self.status)
        application.router.add_post("/wake/{tenant}", self.wake)
        application.router.add_post("/sleep/{tenant}", self.sleep)
        application.router.add_post("/evict/{tenant}", self.evict)
        return application

    async def status(self, request: web.Request) -> web.Response:
        """Answer with every instance that has a process."""
        awake = [self._instance(one) for one in self._instances.everyone()]
        return web.json_response(
            {
                "cell": self._cell,
                "ready": not self._gateway.not_ready,
                "not_ready": self._gateway.not_ready,
                "zygote_pid": self._instances.zygote.pid,
                "limits": self._instances.zygote.limits,
                "awake": awake,
                "wakes": {
                    name: {"wakes": count, "last_wake_s": round(seconds, 4)}
                    for name, (count, seconds) in self._instances.wakes.items()
                },
            }
        )

    async def wake(self, request: web.Request) -> web.Response:
        """Wake a tenant, and answer when it is ready."""
        name = request.match_info["tenant"]
        await self._tenants.find(name)
        instance = await self._instances.wake(name)
        async with asyncio.timeout(self._instances.hold_s):
            await instance.ready.wait()
        return web.json_response(self._instance(instance))

    async def sleep(self, request: web.Request) -> web.Response:
        """Put a tenant to sleep, and answer when its process is gone."""
        was_awake = await self._instances.put_to_sleep(request.match_info["tenant"])
        return web.json_response({"was_awake": was_awake})

    async def evict(self, request: web.Request) -> web.Response:
        """Forget a tenant that is being deleted: drain, end, read the catalogue again.

        The caller sets the state to deleting first, so no request wakes it meanwhile.
        """
        name = request.match_info["tenant"]
        await self._tenants.refresh(name)
        was_awake = await self._instances.put_to_sleep(name)
        self._instances.forget(name)
        return web.json_response({"was_awake": was_awake})

    def _instance(self, instance: Instance) -> dict[str, Any]:
        wakes, last_wake_s = self._instances.wakes.get(instance.tenant, (0, 0.0))
        idle_s = time.monotonic() - instance.last_used
        last_request = datetime.fromtimestamp(time.time() - idle_s, UTC)
        return {
            "tenant": instance.tenant,
            "state": instance.state,
            "pid": instance.pid,
            "in_flight": instance.in_flight,
            "last_request": last_request.isoformat(timespec="milliseconds"),
            "idle_s": round(idle_s, 3),
            "memory": instance.memory,
            "connections": instance.connections,
            "wakes": wakes,
            "last_wake_s": round(last_wake_s, 4),
        }


@web.middleware
async def _explain(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except FleetError as exc:
        answer = refusal(exc)
        return web.json_response(body=answer.body, status=answer.status)
    except TimeoutError:
        return web.json_response({"message": "Not within the holding time"}, status=429)
    return response


@contextlib.asynccontextmanager
async def serving(application: web.Application, socket_file: Path) -> AsyncIterator[None]:
    """Serve on a Unix socket for as long as the context lasts."""
    _make_room(socket_file)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(socket_file)).start()
        await asyncio.to_thread(socket_file.chmod, 0o600)
        yield
    finally:
        await runner.cleanup()


def _make_room(socket_file: Path) -> None:
    """Make the folder (only its owner may enter), and remove what a killed cell left."""
    socket_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket_file.unlink(missing_ok=True)
