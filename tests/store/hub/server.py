"""A small Hub on this machine: dataset repositories with commits, large-file storage, and faults on order.

It speaks what the Hub's own client speaks: create, whoami, validate-yaml, preupload, LFS batch, PUT and
verify, NDJSON commits with a parent, info, tree, and resolve with a redirect to storage of another origin.
Use: `from store.hub.server import Hub`; `environment(hub, home)` for the process that talks to it.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from store.hub.answering import Handler, Storage
from store.hub.api import Api
from store.hub.contents import Repository

TOKEN = "hf_the0owner0of0everything"


def environment(url: str, home: Path, token: str | None = TOKEN) -> dict[str, str]:
    """Variables that the Hub's client reads when it is imported: this Hub, its own cache, short limits."""
    return {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_TOKEN": token or "",
    }


@dataclass
class Fault:
    """What goes wrong with requests `METHOD /path` that match; `how` is one of:

    `status` (answers so), `stall` (half of the body, then silence), `silence` (no answer), `cut` (half of
    the body), `wrong` (other bytes), `lost` (does what was asked, and the answer is lost), `then` (does
    `hook` first, then what was asked).
    """

    pattern: str
    how: str
    times: int
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    hook: Callable[[], object] = lambda: None


class Hub:
    """Serves dataset repositories from memory, and keeps a list of what it was asked."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.times: list[float] = []
        self.leaked: list[str] = []
        self.tokens = {TOKEN}
        self._faults: list[Fault] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._servers = [self._started(Api), self._started(Storage)]
        self.url, self.storage = (f"http://127.0.0.1:{one.server_port}" for one in self._servers)

    def close(self) -> None:
        self._closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, name: str, private: bool = True, **files: bytes) -> Repository:
        """A repository with these files; `__` in a name stands for a dot."""
        made = self.repositories[name] = Repository(private)
        made.commit({".gitattributes": (False, b"*.safetensors filter=lfs\n")}, "initial commit")
        if files:
            made.put(**files)
        return made

    def fail(self, pattern: str, how: str = "status", times: int = 1, **more: Any) -> None:
        """Let the next `times` matching requests go wrong."""
        self._faults.append(Fault(pattern, how, times, **more))

    def heal(self) -> None:
        self._faults.clear()

    def count(self, pattern: str) -> int:
        """How many requests matched so far."""
        return sum(bool(re.search(pattern, line)) for line in self.asked)

    def due(self, line: str) -> Fault | None:
        with self._lock:
            self.asked.append(line)
            self.times.append(time.monotonic())
            for fault in self._faults:
                if fault.times and re.search(fault.pattern, line):
                    fault.times -= 1
                    return fault
        return None

    def wait(self) -> None:
        self._closing.wait(20)

    def _started(self, kind: type[Handler]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(kind.__name__, (kind,), {"hub": self}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server
