"""An extraction that workers make part by part, with a small reader; a worker imports it by name."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from msr_enhance.data.table import InteractionTable
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.llm.protocol import Answer
from msr_enhance.scale.parts_folder import asked_to_stop

USERS = 40


def table():
    """Every user likes three of seven items in one of two scenarios."""
    rows = np.arange(USERS * 12)
    return InteractionTable.from_arrays(
        {
            "user_id": rows // 12,
            "item_id": rows % 7,
            "scenario": np.array(["feed", "shop"], object)[rows % 2],
            "label": (rows % 3 == 0).astype(int),
            "timestamp": (rows * 7919) % 4001,
        }
    )


class Reader:
    """Vectors from the digest of a prompt. At a chosen prompt the process is killed, once."""

    shape = (4,)

    def __init__(self, dies_at="", marks="", seconds=0.0):
        self.identity = {"reader": "parts"}
        self._dies_at, self._marks, self._seconds = dies_at, marks, seconds

    def answer(self, prompts):
        time.sleep(self._seconds)
        return [self._read(str(prompt)) for prompt in prompts]

    def _read(self, prompt):
        digest = hashlib.sha256(prompt.encode()).digest()
        if self._dies_at and digest.hex()[0] in self._dies_at:
            try:
                (Path(self._marks) / digest.hex()).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass
        return Answer("seen", np.frombuffer(digest[:4], np.uint8).astype(np.float32) + 1, 5, 1, "ok", "end")


@dataclass(frozen=True)
class Reads:
    """Makes the store of a part, three rows a commit; `marks` is a folder where each try leaves a file."""

    dies_at: str = ""
    marks: str = ""
    seconds: float = 0.0
    options: dict = field(default_factory=dict)

    def extractor(self):
        return KnowledgeExtractor(Reader(self.dies_at, self.marks, self.seconds), commit_every=3)

    def __call__(self, part, folder):
        if self.marks:
            (Path(self.marks) / f"{part.name}.{time.time_ns()}.try").touch()
        self.extractor().extract(
            table(), folder, part=part, stop=lambda: asked_to_stop(folder), **self.options
        )


class Missing:
    """A look through a store that is there: users are missing."""

    def __call__(self, part, out):
        return True


class Complete:
    """A look through a store that is there: nothing is missing."""

    def __call__(self, part, out):
        return False
