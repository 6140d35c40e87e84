"""Lock: a courtesy that tells a second writer at once; a store is safe without it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Final, Self

from msr_enhance.errors import StoreLockedError

NAME: Final = "lock"
_BUSY = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class Lock:
    """Held by a writer for its life; the kernel takes it back however the writer ends.

    Some network file systems give it to everybody. Then two writers are told apart when the first of
    them commits, as manifests are created exclusively.
    """

    def __init__(self, descriptor: int | None) -> None:
        """Keep a lock; use ``Lock.take``."""
        self._descriptor, self._owner = descriptor, os.getpid()

    @classmethod
    def take(cls, folder: Path) -> Self:
        """Take the lock of a store's folder.

        Args:
            folder: The store's folder.

        Returns:
            The lock; one that locks nothing where the file system has no locks.

        Raises:
            StoreLockedError: If another writer holds it; names its process, its machine and since when.
            OSError: If the folder cannot be written.
        """
        descriptor = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        held = cls(descriptor)  # closes it whatever happens from here on, an interrupt too
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor)
            held.release()
            if error.errno in _BUSY:
                raise StoreLockedError(
                    f"{folder} is being written by {holder}. Wait for it or stop it, then run the same "
                    "command again; readers need no lock."
                ) from error
            return cls(None)
        # Who holds it is for people, and a full disk must not stop a run that has room for its rows.
        with contextlib.suppress(OSError):
            said = {"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(said).encode(), 0)
        return held

    def release(self) -> None:
        """Give the lock back; may be called twice."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with contextlib.suppress(OSError):
                if os.getpid() == self._owner:  # a process forked meanwhile holds the lock too, till it ends
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def _holder(descriptor: int) -> str:
    """Who holds a lock, in words."""
    try:
        said = json.loads(os.pread(descriptor, 4096, 0))
        age = max(0, int(time.time()) - int(said["since"]))
        if int(said["pid"]) == os.getpid():
            return f"another writer of this very process, for {age:,} s (close it)"
        return f"process {int(said['pid'])} on {str(said['host'])[:80]}, for {age:,} s"
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return "another process"  # whatever somebody wrote there
