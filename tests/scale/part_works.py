"""What workers do in the tests; here, because a worker imports it by name."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from msr_enhance.errors import ModelError, Stopped
from msr_enhance.scale.parts_folder import asked_to_stop


@dataclass(frozen=True)
class Notes:
    """Writes down who made a part, after doing to it what `does` says for its index.

    `does` holds pairs `(index, what)`; what ends in ``-once`` is done only the first time.
    """

    does: tuple[tuple[int, str], ...] = ()
    seconds: float = 0.0

    def __call__(self, part, folder):
        folder.mkdir(parents=True, exist_ok=True)
        for what in (what for index, what in self.does if index == part.index):
            if what.endswith("-once"):
                try:
                    (folder / "was-here").touch(exist_ok=False)
                except FileExistsError:
                    continue
            _do(what.removesuffix("-once"), part)
        for _ in range(int(self.seconds / 0.05)):
            if asked_to_stop(folder):
                raise Stopped("after this batch")
            time.sleep(0.05)
        print("a library prints this")
        names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
        note = {"pid": os.getpid(), **{name: os.environ.get(name) for name in names}}
        (folder / "note.json").write_text(json.dumps(note), "utf-8")


def _do(what, part):
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "exit":
        os._exit(3)
    elif what == "fault":
        with contextlib.suppress(ImportError):
            import resource

            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "declare":
        raise ModelError(f"no model for {part.name}.")
    elif what == "break":
        raise RuntimeError("CUDA error: device lost")
    elif what == "hang":
        time.sleep(600)
    else:
        sys.exit(f"{what} is not known")


def notes_of(folder: Path) -> dict[str, dict]:
    """What was written down, by the name of the part."""
    return {path.parent.name: json.loads(path.read_text("utf-8")) for path in folder.glob("*/note.json")}
