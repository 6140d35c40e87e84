"""The Hub's cache on this disk: which commit it knows, whether a file in it is right, and what it holds."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Literal

from msr_enhance.atomic import sha256_file
from msr_enhance.errors import StoreCorruptError, StoreError

Kind = Literal["dataset", "model"]
"""Kinds of repositories: stores live in datasets."""

COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKED: set[tuple[Path, int, int, str | None]] = set()


def check(path: Path, repo: str, where: str, sha256: str | None, size: int | None) -> None:
    """Refuse a file of the cache that is not what was promised, and take it out.

    Args:
        path: The file.
        repo: Its repository.
        where: What the error calls it.
        sha256: Digest it must have; computed once in a process while the file stays as it is.
        size: Bytes it must have.

    Raises:
        StoreCorruptError: It is another file.
        StoreError: It leads out of the cache.
        OSError: The disk refuses.
    """
    target = path.resolve()
    # The client keeps files that several repositories share in a folder beside them.
    own = (cache_of(repo).resolve(), (cache_of(repo).parent / "blobs").resolve())
    found = target.stat()
    if not any(folder in target.parents for folder in own) or not stat.S_ISREG(found.st_mode):
        raise StoreError(
            f"{where}: {path} leads out of the Hub's cache, to {target}. Somebody has changed the cache; "
            f"remove {own[0]} and run the same command again."
        )
    key = (target, found.st_mtime_ns, found.st_size, sha256)
    if key in _CHECKED:
        return
    seen = f"{found.st_size:,} bytes" if size is not None and found.st_size != size else ""
    promised = f"{size:,} bytes" if size is not None else ""
    if not seen and sha256 is not None:
        digest = sha256_file(target)
        seen, promised = (f"SHA-256 {digest}", f"SHA-256 {sha256}") if digest != sha256 else ("", "")
    if seen:
        _remove(path)
        raise StoreCorruptError(
            f"{where} came with {seen}; promised: {promised}. The file was removed from the cache: run the "
            "same command again. If that says the same, the repository holds another file; push it again."
        )
    _CHECKED.add(key)


def _remove(path: Path) -> None:
    """Take a file out of the cache, with every link on the way to it."""
    while True:
        target = path.parent / os.readlink(path) if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is None:
            return
        path = target


def cache_of(repo: str, kind: Kind = "dataset") -> Path:
    """Where the cache keeps a repository."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{kind}s--{repo.replace('/', '--')}"


def cached_commit(repo: str, revision: str, kind: Kind = "dataset") -> str | None:
    """The commit that the cache knows for a revision, where it holds files of it."""
    folder, commit = cache_of(repo, kind), revision
    if not COMMIT.fullmatch(revision):
        try:
            commit = (folder / "refs" / revision).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
    there = COMMIT.fullmatch(commit) and (folder / "snapshots" / commit).is_dir()
    return commit if there else None


def of_any_commit(repo: str, commit: str, file_name: str) -> Path | None:
    """A file that the cache holds at this commit or else another; only for names that are digests."""
    found = sorted((cache_of(repo) / "snapshots").glob(f"*/{file_name}"))
    found.sort(key=lambda path: path.parent.name != commit)
    return next((path for path in found if path.is_file() and COMMIT.fullmatch(path.parent.name)), None)


def other_commits(repo: str, commit: str) -> list[str]:
    """The commits besides one of which the cache holds a manifest."""
    found = {path.parent.name for path in (cache_of(repo) / "snapshots").glob("*/manifest-*.json")}
    return sorted(found - {commit})


def remember(repo: str, revision: str, commit: str, kind: Kind = "dataset") -> None:
    """Note the commit of a branch or tag in the cache, as the Hub's client does; for later without it."""
    if COMMIT.fullmatch(revision):
        return
    path = cache_of(repo, kind) / "refs" / revision
    with contextlib.suppress(OSError):  # a cache that others filled may be read only
        if path.is_file() and path.read_text("ascii") == commit:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        temporary.write_text(commit, "ascii")
        temporary.replace(path)
