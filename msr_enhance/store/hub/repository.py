"""A store's files in a dataset repository of the Hub, all read at one commit."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from msr_enhance.atomic import sha256_file
from msr_enhance.errors import StoreCorruptError, StoreError, StoreIOError
from msr_enhance.store.hub.asking import asked, busy, passing, passing_in_download, reading

_PREFIX = "hf://datasets/"
_ALLOWED = f"Allowed: owner/name, owner/name@revision, {_PREFIX}owner/name or {_PREFIX}owner/name@revision."
_WORD = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CHECKED: set[tuple[Path, int, int, str | None]] = set()


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


def parse_name(name: str, revision: str | None = None) -> Name:
    """Read the name of a dataset repository.

    Args:
        name: ``owner/name``, with ``@revision`` and with ``hf://datasets/`` before it if you like.
        revision: Branch, tag or commit, instead of ``@revision``.

    Returns:
        The parts.

    Raises:
        StoreError: It is none, or gives the revision twice.
    """
    plain = name.removeprefix(_PREFIX)
    if "://" in plain:
        raise StoreError(f"{name!r} is no dataset repository. A store lives in one. {_ALLOWED}")
    repo, at, written = plain.partition("@")
    if at and revision is not None:
        raise StoreError(f"{name!r} has a revision, and revision={revision!r} is given too; write one.")
    if at:
        revision = unquote(written) if plain != name else written
    wrong = "--" in repo or ".." in repo or repo.endswith(".git") or len(repo) > 96
    if wrong or not re.fullmatch(f"{_WORD}/{_WORD}", repo):
        raise StoreError(f"{name!r} names no dataset repository. {_ALLOWED}")
    if revision is not None and (
        not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}", revision)
        or re.search(r"\.\.|//|/\.|\.lock(/|$)|[./]$", revision)
    ):
        raise StoreError(f"{revision!r} is no branch, tag or commit. {_ALLOWED}")
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
    from huggingface_hub import HfApi, constants

    parts = parse_name(name, revision)
    known = _cached_commit(parts)
    try:
        info = asked(
            lambda: HfApi().dataset_info(
                parts.repo,
                revision=parts.revision,
                files_metadata=True,
                token=token,
                timeout=constants.HF_HUB_ETAG_TIMEOUT,
            ),
            parts.repo,
            parts.revision,
            token=token,
            again=busy if known else passing,  # who serves without a network should not wait for one
        )
    except StoreIOError as error:
        if known is None:
            raise
        folder = _cache_of(parts.repo) / "snapshots" / known
        sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
        note = f"commit {known} of the cache is read, which may be old. {error}"
        return Snapshot(parts.repo, known, tuple(sizes), parts.revision, sizes, note, token)
    commit = info.sha or ""
    asked_for = parts.revision or ""
    if not _COMMIT.fullmatch(commit) or (_COMMIT.fullmatch(asked_for) and asked_for != commit):
        raise StoreIOError(
            f"{parts.repo}: the answer names commit {commit[:50]!r}, which no Hub would. Check HF_ENDPOINT."
        )
    listed = info.siblings or []
    return Snapshot(
        parts.repo,
        commit,
        tuple(file.rfilename for file in listed),
        parts.revision,
        {file.rfilename: file.size for file in listed if file.size is not None},
        token=token,
    )


def fetch(snapshot: Snapshot, file_name: str, sha256: str | None = None, size: int | None = None) -> Path:
    """Get one file of a snapshot into the Hub's cache, or find it there, and check it.

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
    from huggingface_hub import hf_hub_download

    where = f"{snapshot.repo}@{snapshot.commit[:12]}/{file_name}"
    if not is_bare(file_name):
        raise StoreError(f"{file_name[:80]!r} is no plain file at the top of {snapshot.repo}.")
    if file_name not in snapshot.files:
        if snapshot.note:
            raise StoreIOError(f"{where} is not in the cache: {snapshot.note}")
        there = ", ".join(name for name in snapshot.files if is_bare(name)) or "no files"
        raise StoreError(f"{where} is not in the repository; it has {there[:300]}.")
    listed = snapshot.sizes.get(file_name)
    if size is not None and listed is not None and size != listed and not snapshot.note:
        raise StoreCorruptError(
            f"{where} has {listed:,} bytes on the Hub where {size:,} are promised. Push the store again, or "
            "name an older revision."
        )
    path = asked(
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
    with reading(path):
        _check(path, snapshot.repo, where, sha256, size)
    _remember(snapshot)
    return path


def _check(path: Path, repo: str, where: str, sha256: str | None, size: int | None) -> None:
    target = path.resolve()
    # The client keeps files that several repositories share in a folder beside them.
    own = (_cache_of(repo).resolve(), (_cache_of(repo).parent / "blobs").resolve())
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


def _cache_of(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}"


def _cached_commit(name: Name) -> str | None:
    """The commit that the cache knows for a name, where it holds files of it."""
    folder, revision = _cache_of(name.repo), name.revision or "main"
    commit = revision
    if not _COMMIT.fullmatch(revision):
        try:
            commit = (folder / "refs" / revision).read_text("ascii").strip()
        except (OSError, ValueError):
            return None
    there = _COMMIT.fullmatch(commit) and (folder / "snapshots" / commit).is_dir()
    return commit if there else None


def _remember(snapshot: Snapshot) -> None:
    """Note the commit of a branch or tag in the cache, as the Hub's client does; for later without it."""
    revision = snapshot.revision or "main"
    if snapshot.note or _COMMIT.fullmatch(revision):
        return
    path = _cache_of(snapshot.repo) / "refs" / revision
    with contextlib.suppress(OSError):  # a cache that others filled may be read only
        if path.is_file() and path.read_text("ascii") == snapshot.commit:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        temporary.write_text(snapshot.commit, "ascii")
        temporary.replace(path)
