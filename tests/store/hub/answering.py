"""How requests are answered on this machine, with the faults that were ordered; and the storage."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SIGNATURE = "X-Amz-Signature=never0shown"


class Handler(BaseHTTPRequestHandler):
    hub: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _any(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path), parse_qs(parts.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.fault = self.hub.due(f"{self.command} {self.route}")
        how = self.fault.how if self.fault else ""
        if self.fault and how == "then":
            self.fault.hook()
        if self.fault and how == "status":
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            return self.say(self.fault.status, {"error": f"no luck with {token}"}, self.fault.headers)
        if how == "silence":
            self.hub.wait()
            self.close_connection = True
            return None
        return self.answer()

    do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815

    def answer(self) -> None:
        raise NotImplementedError

    def say(self, status: int, body: Any, head: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        how = self.fault.how if self.fault else ""
        if how == "lost":
            self.close_connection = True
            return
        if how == "wrong":
            data = bytes([data[0] ^ 1]) + data[1:]
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for key, value in {"Content-Length": str(len(data)), "Content-Type": kind, **(head or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if how in ("cut", "stall") else data)
            self.wfile.flush()
        if how == "stall":
            self.hub.wait()
        self.close_connection = how in ("cut", "stall")


class Storage(Handler):
    """Where large files lie: takes and gives them under signed addresses, and must see no token."""

    def answer(self) -> None:
        if "Authorization" in self.headers:
            self.hub.leaked.append(self.route)
        repository, _, oid = self.route.strip("/").rpartition("/")
        stored = self.hub.repositories[repository].stored
        if urlsplit(self.path).query != SIGNATURE:
            return self.say(403, {"error": "not signed"})
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                return self.say(400, {"error": "other content"})
            stored[oid] = self.body
            return self.say(200, {})
        data = stored.get(oid) or next(
            found
            for commit in self.hub.repositories[repository].commits.values()
            for _, found in commit.files.values()
            if hashlib.sha256(found).hexdigest() == oid
        )
        return ranged(self, data, {})


def ranged(handler: Handler, data: bytes, head: dict[str, str]) -> None:
    start = int((handler.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
    span = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
    handler.say(206 if start else 200, data[start:], {"Accept-Ranges": "bytes", **span, **head})
