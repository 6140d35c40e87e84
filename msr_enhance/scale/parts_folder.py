"""PartsFolder: where the private stores of the parts lie until they are joined, and which are finished."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msr_enhance.atomic import write_bytes_new
from msr_enhance.errors import DataError, StoreError
from msr_enhance.fingerprint import canonical_json, parse_canonical_json
from msr_enhance.scale.part import Part
from msr_enhance.store.versions import highest_version, latest_manifest

_NAME = re.compile(r"part-[0-9]{5}-of-([0-9]{5})")
_LOCK, _STOP = "lock", "stop"


class PartsFolder:
    """The folder ``<out>.parts``: a store for each part, and beside it a mark once the part is finished.

    A mark is a file of its own, ``part-….json``, with the fingerprint of the store's manifest and the key
    of the work. It is looked at, not trusted: the part counts as finished only while its store still has
    that very manifest, and only for work of the same key. Anything else is work to go on with, which
    costs little where nothing is missing.

    Args:
        out: Folder of the store that the parts will be joined into.
        key: Names the work; parts finished by other work are gone through again.

    Attributes:
        path: The folder.
    """

    def __init__(self, out: Path, key: str = "") -> None:
        out = Path(os.path.abspath(out)) if out.name in ("", "..") else out
        self.path = out.with_name(f"{out.name}.parts")
        self._key = key

    def store(self, part: Part) -> Path:
        """Folder of a part's private store."""
        return self.path / part.name

    def finish(self, part: Part) -> None:
        """Mark a part as finished; its store stays as it is until it is joined.

        Raises:
            StoreError: If there is no store where the part was made.
        """
        if not highest_version(self.store(part)):
            raise StoreError(
                f"{part.name} is finished, but {self.store(part)} is not to be seen from here. Every "
                "worker needs the same storage: write --out with a path that all machines share."
            )
        mark = canonical_json({"key": self._key, "manifest": _fingerprint(self.store(part))})
        write_bytes_new(self.path, f"{part.name}.json", mark)

    def finished(self, part: Part, by_anyone: bool = False) -> bool:
        """Whether a part needs no more work.

        Args:
            part: The part.
            by_anyone: Also if work of another key finished it.
        """
        try:
            mark: Any = parse_canonical_json((self.path / f"{part.name}.json").read_bytes())
            key = mark["key"] if by_anyone else self._key
            return bool(mark == {"key": key, "manifest": _fingerprint(self.store(part))})
        except (OSError, ValueError, TypeError, KeyError, StoreError):
            return False

    def stores(self) -> list[Path]:
        """The folders of all part stores that were begun."""
        if not self.path.is_dir():
            return []
        return sorted(path for path in self.path.iterdir() if path.is_dir() and _NAME.fullmatch(path.name))

    def counts(self) -> set[int]:
        """Into how many parts the folder was divided: empty, or one number unless someone mixed two."""
        found = (_NAME.fullmatch(path.name) for path in self.stores())
        return {int(match[1]) for match in found if match}

    def check_count(self, count: int) -> None:
        """Refuse another number of parts than the folder was begun with.

        Raises:
            DataError: If it was; names both numbers.
        """
        if others := self.counts() - {count}:
            begun = min(others)
            raise DataError(
                f"{self.path} was begun with {begun} parts, not {count}. Write --parts {begun} to go on, "
                f"or remove {self.path} to begin again."
            )

    def clear(self) -> None:
        """Remove every part store and mark."""
        # Marks first, so that none outlives its store.
        for mark in self.path.glob("part-*.json"):
            if _NAME.fullmatch(mark.stem):
                mark.unlink()
        for store in self.stores():
            shutil.rmtree(store)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder and keep a second run out of it; afterwards it goes unless it holds a part.

        Raises:
            StoreError: If another run works in it, or it cannot be made.
        """
        try:
            self.path.mkdir(0o750, parents=True, exist_ok=True)
            file = (self.path / _LOCK).open("wb")
        except OSError as error:
            raise StoreError(f"parts cannot be kept in {self.path}: {error}. Write another --out.") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine = os.path.samestat(os.fstat(file.fileno()), os.stat(self.path / _LOCK))
            except BlockingIOError:
                mine = False
            except FileNotFoundError:  # a run that just ended has cleared up
                mine = False
            except OSError:
                mine = True  # a disk without locks; two writers of one store still refuse each other
            if not mine:
                raise StoreError(
                    f"another run is working in {self.path}. Let it end, then run the same command again."
                )
            try:
                yield
            finally:
                if not self.stores():
                    self.may_go_on()
                    (self.path / _LOCK).unlink(missing_ok=True)
                    with contextlib.suppress(OSError):  # something of someone else's lies in it
                        self.path.rmdir()

    def ask_to_stop(self) -> None:
        """Ask every worker, on whatever machine, to stop after its batch."""
        (self.path / _STOP).touch()

    def may_go_on(self) -> None:
        """Take the wish to stop back."""
        (self.path / _STOP).unlink(missing_ok=True)


def asked_to_stop(store: Path) -> bool:
    """Whether a part is to stop after its batch; for the `stop` of an extraction.

    Args:
        store: Folder of the part's private store.
    """
    return (store.parent / _STOP).exists()


def _fingerprint(store: Path) -> str:
    return hashlib.sha256(latest_manifest(store)[1]).hexdigest()
