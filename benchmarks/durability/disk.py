"""A disk that forgets: the log of what a program did to files, and what a power cut may leave of it.

The model is POSIX at its worst. A name in a folder is durable once the folder was fsynced, and what a file
holds once the file was; until then each name is, independently of every other, as it was at any moment
since, and the unsynced end of a file is there, missing, half there, or zeros.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Files = dict[str, bytes]
"""A folder after a power cut: content by path below the recorder's root; a folder is ``b"/"``."""

FOLDER = b"/"
EXHAUSTIVE = 64  # of a cut with more states than these, the prefixes and so many more by lot


class Event(NamedTuple):
    """One thing that was done.

    Attributes:
        kind: ``name`` (a path stands for a file from now on), ``gone``, ``write``, ``sync`` (a file),
            ``sync_folder`` or ``acknowledge``.
        path: Path below the root, as far as the kind has one.
        file: Number of the file, -1 for a folder; of an acknowledgement, how many steps are done.
        data: What was written.
    """

    kind: str
    path: str = ""
    file: int = -1
    data: bytes = b""


class Recorder:
    """Writes the log of what happens below a folder; give `call` to ``calls.between``."""

    def __init__(self, root: Path) -> None:
        """Take what is there for durable."""
        self.root = root
        self.events: list[Event] = []
        self.names: dict[str, int] = {".": -1}
        self.start: Files = {}
        self._open: dict[int, tuple[str, int]] = {}
        self._files = itertools.count(1_000)
        for number, path in enumerate(sorted(root.rglob("*"))):
            name = str(path.relative_to(root))
            self.names[name] = -1 if path.is_dir() else number
            self.start[name] = FOLDER if path.is_dir() else path.read_bytes()

    def acknowledge(self, steps: int) -> None:
        """So many steps have returned."""
        self.events.append(Event("acknowledge", file=steps))

    def call(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], words: dict[str, Any]) -> Any:
        """Make a call and note what it did."""
        assert not {"dir_fd", "src_dir_fd", "dst_dir_fd"} & {k for k, v in words.items() if v is not None}
        found = real(*args, **words)
        if name == "open":
            self._opened(self._path(args[0]), args[1], found)
        elif name == "mkdir":
            self._note(Event("name", self._path(args[0])))
        elif name in ("rename", "replace", "link"):
            source, target = map(self._path, args[:2])
            file = self.names[source]
            # A rename onto another name of the same file does nothing.
            if not (name != "link" and self.names.get(target) == file):
                self._note(Event("name", target, file))
                if name != "link":
                    self._note(Event("gone", source))
        elif name == "unlink":
            self._note(Event("gone", self._path(args[0])))
        elif args and args[0] in self._open:
            path, file = self._open[args[0]]
            if name == "write":
                self._note(Event("write", path, file, bytes(args[1][:found])))
            elif name == "fsync":
                self._note(Event("sync" if file >= 0 else "sync_folder", path, file))
            elif name == "ftruncate":
                assert path.endswith("lock"), f"{path} was cut short"
            elif name == "close":
                del self._open[args[0]]
        return found

    def _opened(self, path: str, flags: int, descriptor: int) -> None:
        if path not in self.names and flags & os.O_CREAT:
            self._note(Event("name", path, next(self._files)))
        elif flags & os.O_TRUNC:
            assert path.endswith("lock"), f"{path} was written over"
        self._open[descriptor] = path, self.names[path]

    def _note(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "name":
            self.names[event.path] = event.file
        elif event.kind == "gone":
            del self.names[event.path]

    def _path(self, path: Any) -> str:
        return os.path.relpath(os.fsdecode(path), self.root)


class Disk:
    """What is durable, and what only was asked for."""

    def __init__(self, recorder: Recorder, keep: Callable[[str], bool]) -> None:
        """Begin where a recording began.

        Args:
            recorder: The recording; its events are given to `happen` one by one.
            keep: Which names count; of the others the newest state stands.
        """
        start = sorted(recorder.start)
        self._keep = keep
        self._data = {n: recorder.start[name] for n, name in enumerate(start)}
        self._safe = {n: len(data) for n, data in self._data.items()}
        folders = {name for name in start if recorder.start[name] == FOLDER}
        self._durable = {name: -1 if name in folders else n for n, name in enumerate(start)}
        self._pending: list[tuple[str, int | None]] = []

    def happen(self, event: Event) -> None:
        """One event more."""
        if event.kind == "name":
            self._pending.append((event.path, event.file))
        elif event.kind == "gone":
            self._pending.append((event.path, None))
        elif event.kind == "write":
            self._data[event.file] = self._data.get(event.file, b"") + event.data
        elif event.kind == "sync":
            self._safe[event.file] = len(self._data.get(event.file, b""))
        elif event.kind == "sync_folder":
            inside = [one for one in self._pending if os.path.dirname(one[0]) == event.path.removeprefix(".")]
            self._pending = [one for one in self._pending if one not in inside]
            for path, file in inside:
                self._set(self._durable, path, file)

    def now(self) -> Files:
        """What a program sees that does not lose power."""
        return self._files(self._named(self._pending), "whole")

    def after_a_cut(self, draw: random.Random) -> Iterator[Files]:
        """What a power cut at this moment may leave, all of it or a sample."""
        for named in self._name_states(draw):
            unsafe = sorted({f for f in named.values() if self._safe.get(f, 0) < len(self._data.get(f, b""))})
            if not unsafe:
                yield self._files(named, "whole")
            for way in ("whole", "empty", "half", "zeros") if unsafe else ():
                yield self._files(named, way)

    def _name_states(self, draw: random.Random) -> Iterator[dict[str, int]]:
        certain = [one for one in self._pending if not self._keep(one[0])]
        loose = [one for one in self._pending if self._keep(one[0])]
        choices: dict[str, list[int | None]] = {}
        for path, file in loose:
            choices.setdefault(path, [self._durable.get(path)]).append(file)
        states = 1
        for values in choices.values():
            states *= len(values)
        if states <= EXHAUSTIVE:
            for chosen in itertools.product(*choices.values()):
                yield self._named([*certain, *zip(choices, chosen, strict=True)])
            return
        for length in range(len(loose) + 1):
            yield self._named([*certain, *loose[:length]])
        for _ in range(EXHAUSTIVE):
            drawn = [(path, draw.choice(values)) for path, values in choices.items()]
            yield self._named([*certain, *drawn])

    def _named(self, changes: list[tuple[str, int | None]]) -> dict[str, int]:
        named = dict(self._durable)
        for path, file in changes:
            self._set(named, path, file)
        # A file is reached only through its folder.
        return {path: f for path, f in named.items() if (at := path.rpartition("/")[0]) in named or not at}

    def _files(self, named: dict[str, int], way: str) -> Files:
        return {path: FOLDER if f < 0 else self._left(f, way) for path, f in named.items()}

    def _left(self, file: int, way: str) -> bytes:
        data = self._data.get(file, b"")
        safe = self._safe.get(file, 0)
        rest = len(data) - safe
        if way == "whole" or not rest:
            return data
        return data[:safe] + {"empty": b"", "half": data[safe : safe + rest // 2], "zeros": bytes(rest)}[way]

    @staticmethod
    def _set(named: dict[str, int], path: str, file: int | None) -> None:
        if file is None:
            named.pop(path, None)
        else:
            named[path] = file
