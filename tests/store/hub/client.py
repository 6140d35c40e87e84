"""A process of its own that talks to a Hub, and the other end of its pipe.

The Hub's client reads its environment when it is imported, so each test has a fresh process; calls go in
as lines of JSON and come back as such.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from store.hub.server import TOKEN, environment

TESTS = Path(__file__).parents[2]


class RefusedError(Exception):
    """What the call in the other process raised; `kind` is the class."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Client:
    """Calls `resolve`, `fetch`, `push` in a process with its own cache.

    Also `limit`, the largest file it may write; `silence`, the limit of the shared HTTP client; and
    `overlap`, that limit as threads see it.
    """

    def __init__(self, url: str, home: Path, token: str | None = TOKEN, **more: str) -> None:
        path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", __file__],
            env={**os.environ, "PYTHONPATH": path, **environment(url, home, token), **more},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, what: str, *given: Any, **named: Any) -> Any:
        """What it returned; a `RefusedError` for what it raised."""
        self.start(what, *given, **named)
        return self.answer()

    def start(self, what: str, *given: Any, **named: Any) -> None:
        """Send a call, and do not wait."""
        self._process.stdin.write(json.dumps([what, given, named], default=str) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What the oldest call that was sent returned; a `RefusedError` for what it raised."""
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the process is gone: {self._process.stderr.read()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RefusedError(*answer["error"])
        return answer["value"]

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def _serve() -> None:
    import dataclasses
    import re
    import resource
    import threading
    import time
    import traceback
    from concurrent.futures import ThreadPoolExecutor

    from msr_enhance.store.hub import asking, repository, upload

    asking.FIRST_WAIT, asking.SILENCE = 0.01, 1.0
    snapshots: list[repository.Snapshot] = []

    def resolve(*given: Any, **named: Any) -> dict[str, Any]:
        snapshots.append(repository.resolve(*given, **named))
        return dataclasses.asdict(snapshots[-1]) | {"shown": repr(snapshots[-1])}

    def fetch(*given: Any, **named: Any) -> str:
        return str(repository.fetch(snapshots[-1], *given, **named))

    def push(repo: str, folder: str, names: list[str], **named: Any) -> dict[str, Any]:
        said: list[str] = []
        named |= {name: re.compile(named[name]) for name in ("delete", "ours") if name in named}
        options = {"message": "push", "say": said.append, **named}
        return dataclasses.asdict(upload.push_files(repo, Path(folder), names, **options)) | {"said": said}

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def silence() -> float | None:
        import huggingface_hub

        return huggingface_hub.get_session().timeout.read

    def overlap(threads: int) -> list[float | None]:
        """The limit that each of some calls under way sees as it ends, one after another; and afterwards."""
        begun = threading.Barrier(threads)

        def one(number: int) -> float | None:
            begun.wait(5)
            time.sleep(number / 50)
            return silence()

        with ThreadPoolExecutor(threads) as pool:
            seen = pool.map(lambda number: asking.asked(lambda: one(number), "own/store"), range(threads))
        return [*seen, silence()]

    calls = {"resolve": resolve, "fetch": fetch, "push": push, "limit": limit, "silence": silence}
    calls["overlap"] = overlap
    for line in sys.stdin:
        what, given, named = json.loads(line)
        try:
            answer = {"value": calls[what](*given, **named)}
        except Exception as error:
            shown = "".join(traceback.format_exception(error)) + repr(error.args)
            if any(secret in shown for secret in (TOKEN, "never0shown", named.get("token") or TOKEN)):
                raise
            answer = {"error": (type(error).__name__, str(error))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
