"""Turn: one change of a writer after the other, and none once memory and disk may differ."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from msr_enhance.errors import StoreError, StoreIOError
from msr_enhance.store.commit import writing


class Turn:
    """Keeps the changes of one writer apart, also those of several threads.

    Args:
        folder: The store's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.RLock()
        self.unsure = False

    @contextlib.contextmanager
    def change(self, what: str) -> Iterator[None]:
        """A whole change, on disk and in memory.

        Args:
            what: What is written, for messages.

        Raises:
            StoreError: If an earlier change was broken off while it committed, or the disk refuses.
        """
        with self._turn:
            if self.unsure:
                raise StoreError(
                    f"an earlier call of this writer was broken off while it committed: {self._folder} has "
                    "those rows or not. Open the store again, and look at what it has."
                )
            with writing(self._folder, what):
                yield
            self.unsure = False

    @contextlib.contextmanager
    def committing(self) -> Iterator[None]:
        """The part of a change from which on nobody knows, if it is broken off, whether it counts."""
        self.unsure = True
        try:
            yield
        except StoreIOError:
            raise
        except (StoreError, OSError):
            self.unsure = False  # nothing was added
            raise
