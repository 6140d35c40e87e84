"""The Hub of the stores' tests, for model repositories: the same protocol under other addresses."""

from __future__ import annotations

import json
import re
from http.server import ThreadingHTTPServer
from typing import Any

from store.hub.answering import Handler
from store.hub.api import Api
from store.hub.server import Hub

_NAME = r"[^/]+/[^/]+?"


class ModelApi(Api):
    """Answers about models, and knows no dataset."""

    def answer(self) -> None:
        asked = self.route
        self.route = re.sub(r"^/api/models/", "/api/datasets/", asked)
        if re.fullmatch(rf"/{_NAME}(\.git/info/lfs/.*|/resolve/.*)", asked):
            self.route = f"/datasets{asked}"
        if asked.startswith(("/api/datasets", "/datasets")):
            return self.say(404, {"error": f"no route {asked}"})
        return super().answer()

    def say(self, status: int, body: Any, head: dict[str, str] | None = None) -> None:
        if not isinstance(body, bytes):  # addresses that it hands out
            body = json.loads(json.dumps(body).replace(f"{self.hub.url}/datasets/", f"{self.hub.url}/"))
        super().say(status, body, head)

    def create(self) -> None:
        said = json.loads(self.body)
        if said.get("type", "model") != "model":
            return self.say(400, {"error": f"made as {said['type']}"})
        return super().create()


class ModelHub(Hub):
    """Serves model repositories from memory."""

    def _started(self, kind: type[Handler]) -> ThreadingHTTPServer:
        chosen: Any = ModelApi if kind is Api else kind
        return super()._started(chosen)
