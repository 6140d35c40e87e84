"""A small Hub on this machine: what reading a model asks of the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves repositories from memory; `cut` files end in the middle of their body.

    Args:
        repositories: Files of each repository.
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = repositories
        self.cut: set[str] = set()
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub._serve(self)

            def do_HEAD(self) -> None:
                hub._serve(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path).strip("/")
        if path.startswith("api/models/"):
            name, _, rest = self._repository(path.removeprefix("api/models/"))
            if name is None:
                return self._say(request, 404, {"error": "no"}, {"X-Error-Code": "RepoNotFound"})
            files = self.repositories[name]
            if rest.startswith("tree/"):
                listed = [
                    {"type": "file", "path": file, "size": len(data), "oid": self._tag(data)}
                    for file, data in files.items()
                ]
                return self._say(request, 200, listed)
            if rest and rest.removeprefix("revision/") not in ("main", COMMIT):
                return self._say(request, 404, {"error": "no"}, {"X-Error-Code": "RevisionNotFound"})
            siblings = [{"rfilename": file} for file in files]
            return self._say(request, 200, {"id": name, "sha": COMMIT, "siblings": siblings, "tags": []})
        name, _, rest = self._repository(path)
        file = rest.removeprefix(f"resolve/{COMMIT}/")
        if name is None or file not in self.repositories[name]:
            return self._say(request, 404, {"error": "no"}, {"X-Error-Code": "EntryNotFound"})
        data = self.repositories[name][file]
        if request.command == "GET":
            self.asked.append(file)
        head = {"X-Repo-Commit": COMMIT, "ETag": f'"{self._tag(data)}"', "Accept-Ranges": "bytes"}
        start = int((request.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        return self._say(request, 206 if start else 200, data[start:], head, cut=file in self.cut)

    def _repository(self, path: str) -> tuple[str | None, str, str]:
        name = next((name for name in self.repositories if f"{path}/".startswith(f"{name}/")), None)
        return name, path, path[len(name or "") :].strip("/")

    def _tag(self, data: bytes) -> str:
        return hashlib.sha1(data).hexdigest()

    def _say(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        body: Any,
        head: Mapping[str, str] | None = None,
        cut: bool = False,
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(head or {})}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(data[: len(data) // 2] if cut else data)
