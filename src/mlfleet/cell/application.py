"""Assemble MLflow's server application without `mlflow.server.fastapi_app`.

That module needs pandas and numpy through the AI gateway, and mounts the assistant, which runs
shell commands for whoever looks local. Here the same routers stand in the same order, minus those
two. Stock runs every request through five layers of middleware and a linear search of some sixty
routes before Flask sees it; only what changes an answer is kept, and a request that no native
route can match goes to Flask directly. Left out because the gateway in front decides it: the check
of `Host` (always localhost here) and everything about `Origin` (removed before it comes here).
"""

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from mlfleet.cell import migration, signature
from mlfleet.cell.exhaustion import report_from_flask
from mlfleet.cell.protocol import InstanceConfig
from mlfleet.cell.threads import Threads
from mlfleet.cell.wsgi import ASGIApp, Message, Receive, Scope, Send, Wsgi
from mlfleet.store.connection import StoreConnection

THREADS = 8
"""Most Flask requests at work at once; they share one database connection, so few are enough."""
HEAVY_PACKAGES = ("matplotlib", "numpy", "pandas", "pyarrow", "scipy", "sklearn", "torch")
"""Kept out even when installed: MLflow's server needs none of them, and each costs memory."""
UNUSED_MODULES = ("mlflow.server.auth", "mlflow.server.fastapi_app")
"""Stock tries to import its basic-auth application on every search and every GraphQL query, for a
second or so without success when a package of its extra is missing: let it fail at once."""
API_PREFIXES = ("/api/", "/ajax-api/")
NOTEBOOK_RENDERER = "/static-files/lib/notebook-trace-renderer"
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # Flask would repeat what the layers below do once for all routes.
    "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""What MLflow must find in its environment before it is imported."""


def native_application(flask: ASGIApp) -> ASGIApp:
    """Return a FastAPI application with MLflow's native routes, and `flask` behind them."""
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from mlflow.exceptions import MlflowException
    from mlflow.server.artifact_router import artifact_router
    from mlflow.server.asgi_utils import get_routed_asgi_path
    from mlflow.server.job_api import job_api_router
    from mlflow.server.mcp_server_api import (
        _request_validation_error_response,
        get_mcp_server_api_route_prefixes,
        is_mcp_server_api_path,
        mcp_server_router,
    )
    from mlflow.server.mlflow_response import mlflow_exception_response
    from mlflow.server.otel_api import otel_router
    from mlflow.server.server_info_api import server_info_router

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(otel_router)
    app.include_router(job_api_router)
    app.include_router(artifact_router)
    for prefix in get_mcp_server_api_route_prefixes():
        app.include_router(mcp_server_router, prefix=prefix)
    app.include_router(server_info_router)
    app.mount("/", flask)

    @app.exception_handler(MlflowException)
    async def answer_mlflow_error(request: Request, exc: MlflowException) -> Any:
        return mlflow_exception_response(exc, handler_name="mcp_mlflow_exception_handler")

    @app.exception_handler(RequestValidationError)
    async def answer_invalid_request(request: Request, exc: RequestValidationError) -> Any:
        if is_mcp_server_api_path(get_routed_asgi_path(request)):
            return _request_validation_error_response(exc)
        return JSONResponse(status_code=422, content={"detail": exc.errors()})

    return app


def native_prefixes(app: Any) -> tuple[str, ...]:
    """Return the constant beginnings of all native routes of a FastAPI application."""
    beginnings = {path.split("{")[0] for path in _paths(app.routes) if path}
    return tuple(sorted(beginnings))


def _paths(routes: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for route in routes:
        if hasattr(route, "effective_route_contexts"):
            found += [context.path for context in route.effective_route_contexts()]
        else:
            found.append(getattr(route, "path", ""))
    return found


class Router:
    """Send a request to the native routes if one of them could match, else straight to Flask."""

    def __init__(self, native: ASGIApp, prefixes: tuple[str, ...], flask: ASGIApp) -> None:
        self.native = native
        self.prefixes = prefixes
        self.flask = flask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch by path only: the native application falls back to Flask by itself."""
        if scope["type"] == "http" and not scope["path"].startswith(self.prefixes):
            await self.flask(scope, receive, send)
        else:
            await self.native(scope, receive, send)


class SecurityHeaders:
    """Stock's security headers, on every answer, and 204 for OPTIONS on the API."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the headers to the start of the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        may_be_framed = path.startswith(NOTEBOOK_RENDERER)
        is_api_options = scope["method"] == "OPTIONS" and path.startswith(API_PREFIXES)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = dict(message.get("headers", []))
                headers[b"x-content-type-options"] = b"nosniff"
                if not may_be_framed:
                    headers[b"x-frame-options"] = b"SAMEORIGIN"
                if is_api_options and message["status"] == 200:
                    message["status"] = 204
                    headers.pop(b"content-length", None)
                message["headers"] = list(headers.items())
            await send(message)

        await self.app(scope, receive, send_with_headers)


class NoWorkspaces:
    """Workspaces are off, as in stock's default: a request that names one gets stock's refusal."""

    def __init__(self, app: ASGIApp) -> None:
        from mlflow.server.workspace_helpers import resolve_workspace_for_request_if_enabled
        from mlflow.utils.workspace_context import set_server_request_workspace
        from mlflow.utils.workspace_utils import WORKSPACE_HEADER_NAME

        self.app = app
        self._resolve: Callable[[str, str | None], Any] = resolve_workspace_for_request_if_enabled
        self._set: Callable[[None], Any] = set_server_request_workspace
        self._header = WORKSPACE_HEADER_NAME.lower().encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it if it names a workspace."""
        if scope["type"] == "http":
            named = next((v for k, v in scope["headers"] if k == self._header), None)
            if named is not None and (refusal := self._refusal(scope["path"], named)):
                await refusal(scope, receive, send)
                return
            self._set(None)
        await self.app(scope, receive, send)

    def _refusal(self, path: str, named: bytes) -> Any:
        from mlflow.exceptions import MlflowException
        from starlette.responses import JSONResponse

        try:
            self._resolve(path, named.decode("latin1"))
        except MlflowException as exc:
            return JSONResponse(json.loads(exc.serialize_as_json()), exc.get_http_status_code())
        return None


def prepare_environment() -> None:
    """Set MLflow's switches and keep heavy packages out; call before MLflow is first imported."""
    import sys

    os.environ.update(ENVIRONMENT)
    for name in (*HEAVY_PACKAGES, *UNUSED_MODULES):
        # `import pandas` then fails exactly as it does where pandas is not installed.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    sys.modules.setdefault("mlflow.models.signature", signature)
    for name, module in migration.stand_ins().items():
        sys.modules.setdefault(name, module)


def assemble(threads: Threads) -> ASGIApp:
    """Return MLflow's application as stock serves it, without tenant and store."""
    from mlfleet.cell.rules import use_lazy_rules

    use_lazy_rules()
    from mlflow.server import app as flask_app

    report_from_flask(flask_app)
    flask = Wsgi(flask_app, threads)
    native = native_application(flask)
    router = Router(native, native_prefixes(native), flask)
    return NoWorkspaces(SecurityHeaders(router))


def use_store(config: InstanceConfig) -> StoreConnection:
    """Point MLflow at a tenant's database and artifacts; opens nothing yet."""
    from mlfleet.store.installation import StoreConfig, install

    return install(
        StoreConfig(
            database=config.database,
            artifact_root=config.artifact_root,
            artifact_bytes=config.artifact_bytes,
            kek_passphrase=config.kek_passphrase,
            idle_s=config.database_idle_s,
            wait_s=config.database_wait_s,
            s3_environment=config.s3_environment,
        )
    )
