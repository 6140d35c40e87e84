"""Programs in processes of their own that start at once: forked from one that has imported torch.

The Hub's client reads its environment when it is imported, which happens in the fork alone. Run as a
script it serves lines of JSON, `{"program", "environment", "folder"}`; `Programs` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Programs:
    """Runs programs; `saving` and torch are imported already."""

    def __init__(self) -> None:
        path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", __file__],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, environment: dict[str, str], folder: Path) -> str:
        """What it printed; an `AssertionError` where it failed."""
        order = {"program": program, "environment": environment, "folder": str(folder)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["code"] == 0, answer["said"]
        return answer["said"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


def _run(order: dict[str, Any], said: Path) -> None:
    """In the fork."""
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    with said.open("w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        try:
            exec(order["program"], {"__name__": "a_program"})
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
    os._exit(code)


def _serve() -> None:
    import saving  # noqa: F401

    assert "huggingface_hub" not in sys.modules, "it would have read the wrong environment"
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryDirectory() as made:
            said = Path(made) / "said"
            child = os.fork()
            if child == 0:
                _run(order, said)
            _, status = os.waitpid(child, 0)
            answer = {"code": os.waitstatus_to_exitcode(status), "said": said.read_text()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
