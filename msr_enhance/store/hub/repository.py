"""A store's files in a dataset repository of the Hub, all read at one commit."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.hub.asking import (
    asked,
    busy,
    no_repository,
    passing,
    passing_in_download,
    reading,
)
from msr_enhance.store.hub.cache import (
    COMMIT,
    Kind,
    cache_of,
    cached_commit,
    check,
    of_any_commit,
    other_commits,
    remember,
)

PREFIX = "hf://datasets/"
_ALLOWED = f"Allowed: owner/name, owner/name@revision, {PREFIX}owner/name or {PREFIX}owner/name@revision."
_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"


@dataclass(frozen=True)
class Name:
    """A dataset repository, perhaps at a revision.

    Attributes:
        repo: ``owner/name``.
        revision: Branch, tag or commit; the default branch where it is missing.
    """

    repo: str
    revision: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The files of a repository at one commit.

    Pickled it loses the token: another process fetches with its own login (`hf auth login`, HF_TOKEN).

    Attributes:
        repo: ``owner/name``.
        commit: 40 hex digits.
        files: Names of all files.
        revision: What was asked for.
        sizes: Bytes of the files, where they are known.
        note: Why the cache had to answer instead of the Hub; empty where the Hub did.
        token: Token to fetch with.
    """

    repo: str
    commit: str
    files: tuple[str, ...]
    revision: str | None = None
    sizes: dict[str, int] = field(default_factory=dict, repr=False)
    note: str = ""
    token: str | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "token": None}


def parse_name(name: str, revision: str | None = None, kind: Kind = "dataset") -> Name:
    """Read the name of a repository.

    Args:
        name: ``owner/name``, with ``@revision`` and with ``hf://datasets/`` before it if you like.
        revision: Branch, tag or commit, instead of ``@revision``.
        kind: Of the repository; that of a model has no prefix.

    Returns:
        The parts.

    Raises:
        StoreError: It is none, or gives the revision twice.
    """
    allowed = _ALLOWED if kind == "dataset" else "Allowed: owner/name or owner/name@revision."
    plain = name.removeprefix(PREFIX) if kind == "dataset" else name
    if "://" in plain and kind == "dataset":
        raise StoreError(f"{name!r} is no dataset repository. A store lives in one. {_ALLOWED}")
    repo, at, written = plain.partition("@")
    if at and revision is not None:
        raise StoreError(f"{name!r} has a revision, and revision={revision!r} is given too; write one.")
    if at:
        revision = unquote(written) if plain != name else written
    wrong = "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96
    if wrong or not re.fullmatch(f"{_WORD}/{_WORD}", repo):
        raise StoreError(f"{name!r} names no {kind} repository. {allowed}")
    if revision is not None and (
        not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}", revision)
        or re.search(r"\.\.|//|/\.|\.lock(/|$)|[./]$", revision)
    ):
        raise StoreError(f"{revision!r} is no branch, tag or commit. {allowed}")
    return Name(repo, revision)


def is_bare(file_name: str) -> bool:
    """Whether a name is one of a plain file at the top: no separator, no leading dot or hyphen."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}", file_name) is not None


def resolve(name: str, revision: str | None = None, token: str | None = None) -> Snapshot:
    """Find the commit that a name stands for now, and its files, by one request.

    Where the Hub cannot be reached, the commit that an earlier `fetch` left in the cache is taken; the
    snapshot's note says so.

    Args:
        name: See `parse_name`.
        revision: Branch, tag or commit; the default branch where it is missing.
        token: Token of the Hub, instead of the one of `hf auth login`.

    Returns:
        The commit and its files; `fetch` reads them.

    Raises:
        StoreError: There is no such repository or revision, or it may not be read.
        StoreIOError: The Hub cannot be reached, and the cache knows nothing.
    """
    found = find(name, revision, token)
    if found is None:
        raise StoreError(no_repository(parse_name(name, revision).repo))
    return found


def look_up(parts: Name, token: str | None, known: bool, kind: Kind) -> Any:
    """Commit (`sha`) and files (`siblings`) of a repository, asked of the Hub.

    Args:
        parts: Its name.
        token: Token of the Hub.
        known: Whether the cache could answer: then a Hub that does not is not asked for long.
        kind: ``dataset`` or ``model``.

    Returns:
        What the Hub said; None where there is none of that name, or none that the token may see.

    Raises:
        StoreIOError: The Hub cannot be reached, or names no commit, or another than was asked for.
        StoreError: The Hub refuses.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    def look() -> Any:
        limit = constants.HF_HUB_ETAG_TIMEOUT
        try:
            return HfApi().repo_info(
                parts.repo,
                revision=parts.revision,
                repo_type=kind,
                files_metadata=True,
                token=token,
                timeout=limit,
            )
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None

    # Who serves without a network should not wait for one.
    again = busy if known else passing
    info = asked(look, parts.repo, parts.revision, token=token, again=again, kind=kind)
    if info is None:
        return None
    commit, asked_for = info.sha or "", parts.revision or ""
    if not COMMIT.fullmatch(commit) or (COMMIT.fullmatch(asked_for) and asked_for != commit):
        raise StoreIOError(
            f"{parts.repo}: the answer names commit {commit[:50]!r}, which no Hub would. Check HF_ENDPOINT."
        )
    return info


def find(name: str, revision: str | None = None, token: str | None = None) -> Snapshot | None:
    """As `resolve`, but None where there is no such repository, or none that the token may see."""
    parts = parse_name(name, revision)
    known = cached_commit(parts.repo, parts.revision or "main")
    try:
        info = look_up(parts, token, known is not None, "dataset")
    except StoreIOError as error:
        if known is None:
            raise
        folder = cache_of(parts.repo) / "snapshots" / known
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
        note = f"commit {known} of the cache is read, which may be old. {error}"
        return Snapshot(parts.repo, known, tuple(sizes), parts.revision, sizes, note, token)
    if info is None:
        return None
    listed = info.siblings or []
    return Snapshot(
        parts.repo,
        info.sha,
        tuple(file.rfilename for file in listed),
        parts.revision,
        {file.rfilename: file.size for file in listed if file.size is not None},
        token=token,
    )


def fetch(snapshot: Snapshot, file_name: str, sha256: str | None = None, size: int | None = None) -> Path:
    """Get one file of a snapshot into the Hub's cache, or find it there, and check it.

    One that the cache holds at another commit will do where its digest is promised: a commit that changes
    other files must not make a store unreadable without a network.

    Args:
        snapshot: From `resolve`; the file is of its commit, wherever the branch is now.
        file_name: A plain file at the top of the repository.
        sha256: Digest it must have, as 64 hex digits; checked once in a process while the file stays
            as it is. Without it the content is not checked.
        size: Bytes it must have.

    Returns:
        The file in the cache, often a symbolic link inside the cache.

    Raises:
        StoreCorruptError: It is another file than promised; it is removed from the cache.
        StoreError: There is no such file, or it may not be read.
        StoreIOError: It could not be fetched now; the same command goes on.
    """
    where = f"{snapshot.repo}@{snapshot.commit[:12]}/{file_name}"
    if not is_bare(file_name):
        raise StoreError(f"{file_name[:80]!r} is no plain file at the top of {snapshot.repo}.")
    if file_name not in snapshot.files and not snapshot.note:
        there = ", ".join(name for name in snapshot.files if is_bare(name)) or "no files"
        raise StoreError(f"{where} is not in the repository; it has {there[:300]}.")
    listed = snapshot.sizes.get(file_name)
    if size is not None and listed is not None and size != listed and not snapshot.note:
        raise StoreCorruptError(
            f"{where} has {listed:,} bytes on the Hub where {size:,} are promised. Push the store again, or "
            "name an older revision."
        )
    held = of_any_commit(snapshot.repo, snapshot.commit, file_name) if sha256 else None
    path = held or _downloaded(snapshot, file_name)
    with reading(path):
        check(path, snapshot.repo, where, sha256, size)
    if not snapshot.note:
        remember(snapshot.repo, snapshot.revision or "main", snapshot.commit)
    return path


def _downloaded(snapshot: Snapshot, file_name: str) -> Path:
    """Where the Hub's client has put a file; without a network where it had put it before."""
    from huggingface_hub import hf_hub_download

    if file_name not in snapshot.files:
        others = ", ".join(other_commits(snapshot.repo, snapshot.commit)[:5])
        raise StoreIOError(
            f"{snapshot.repo}@{snapshot.commit[:12]}/{file_name} is not in the cache: {snapshot.note}"
            + (f" The cache has files of other commits, to be named as revision: {others}." if others else "")
        )
    return asked(
        lambda: Path(
            hf_hub_download(
                snapshot.repo,
                file_name,
                repo_type="dataset",
                revision=snapshot.commit,
                token=snapshot.token,
                local_files_only=bool(snapshot.note),
            )
        ),
        snapshot.repo,
        snapshot.commit,
        token=snapshot.token,
        again=passing_in_download,
    )
