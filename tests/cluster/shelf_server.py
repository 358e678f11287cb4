"""A small API server over HTTP: it keeps documents by path, lists them, and knows no other kind."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONFIG = """{apiVersion: v1, kind: Config, current-context: x,
clusters: [{name: x, cluster: {server: "http://127.0.0.1:%d"}}],
users: [{name: x, user: {}}],
contexts: [{name: x, context: {cluster: x, user: x}}]}"""

Documents = dict[str, Any]


class Handler(BaseHTTPRequestHandler):
    """Answers GET: a document, a list (a document that is a list), a text, or that kind's 404."""

    documents: Documents

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        groups = {one.rsplit("/", 1)[0] for one in self.documents} - {""}
        known = any(path.startswith(group) for group in groups)
        found = self.documents.get(path)
        if isinstance(found, str):
            self.answer(200, "text/plain", found)
        elif isinstance(found, list):
            self.answer(200, "application/json", json.dumps({"metadata": {}, "items": found}))
        elif found is not None:
            self.answer(200, "application/json", json.dumps(found))
        elif known:
            message = {"message": f'"{path.rsplit("/", 1)[1]}" not found'}
            self.answer(404, "application/json", json.dumps(message))
        else:
            self.answer(404, "text/plain", "404 page not found\n")

    def do_POST(self) -> None:
        """Keep nothing: what is asked of a kind that is not there is answered alike."""
        self.do_GET()

    def answer(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving(documents: Documents, folder: Path) -> Iterator[Path]:
    """Serve documents; yield a kubeconfig for them."""
    kind = type("Handler", (Handler,), {"documents": documents})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        config = folder / "kubeconfig"
        config.write_text(CONFIG % server.server_address[1])
        yield config
        server.shutdown()
        thread.join()
