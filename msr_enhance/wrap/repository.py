"""A saved model in a model repository of the Hub: found at one commit, and recognised before a push."""

from __future__ import annotations

import warnings
from pathlib import Path

from msr_enhance.errors import EnhanceError, StoreError, StoreIOError
from msr_enhance.store.hub.asking import asked, no_repository, passing_in_download
from msr_enhance.store.hub.cache import cache_of, cached_commit, remember
from msr_enhance.store.hub.repository import Name, look_up, parse_name
from msr_enhance.wrap.saved import CONFIG, CONFIG_BYTES, WEIGHTS, is_ours
from msr_enhance.wrap.saved_folder import read_config


def located(name: str | Path, revision: str | None = None, token: str | None = None) -> Path:
    """The folder that holds a saved model: one of this disk, or the Hub's cache once both files are there.

    The name is resolved to a commit once, and both files are of it. Where the Hub cannot be reached, what the
    cache has is taken; a warning says so.

    Args:
        name: A folder, ``owner/name`` or ``owner/name@revision``. A `Path`, and a text that looks like one,
            is never looked for on the Hub.
        revision: Branch, tag or commit of the repository.
        token: Token of the Hub, instead of the one of `hf auth login`.

    Raises:
        EnhanceError: There is no such folder or repository, or no model in it.
        StoreIOError: The Hub cannot be reached, and the cache does not have it.
        StoreError: The Hub refuses.
    """
    if Path(name).is_dir():
        if revision is not None:
            raise EnhanceError(f"{name} is a folder and has no revision {revision!r}; write its path alone.")
        return Path(name)
    if _is_path(name):
        raise EnhanceError(
            f"There is no such folder: {name}. Allowed: the folder that save_pretrained() wrote (with ~ "
            "written out), or a name of the Hub, owner/name, as text."
        )
    parts = _parsed(str(name), revision)
    branch = parts.revision or "main"
    known = cached_commit(parts.repo, branch, "model")
    try:
        info = look_up(parts, token, known is not None, "model")
    except StoreIOError as error:
        if known is None:
            raise
        said = f"{name}: commit {known} of the cache is read, which may be old. {error}"
        warnings.warn(said, UserWarning, stacklevel=4)
        return cache_of(parts.repo, "model") / "snapshots" / known
    if info is None:
        raise EnhanceError(no_repository(parts.repo, "model"))
    sizes = {file.rfilename: file.size for file in info.siblings or []}
    folder = _fetched(parts.repo, info.sha, CONFIG, sizes, CONFIG_BYTES, token).parent
    _fetched(parts.repo, info.sha, WEIGHTS, sizes, read_config(folder).weights.bytes, token)
    remember(parts.repo, branch, info.sha, "model")
    return folder


def refuse_other_work(repo: str, revision: str | None, token: str | None) -> None:
    """Refuse to push over a model that this library did not save: many have files of the same names.

    Raises:
        EnhanceError: The repository holds one.
        StoreIOError: The Hub cannot be reached.
        StoreError: The Hub refuses.
    """
    parts = _parsed(repo, revision)
    info = look_up(parts, token, False, "model")
    sizes = {} if info is None else {file.rfilename: file.size for file in info.siblings or []}
    if info is None or not sizes.keys() & {CONFIG, WEIGHTS}:
        return
    ours = False
    if (sizes.get(CONFIG) or CONFIG_BYTES + 1) <= CONFIG_BYTES:
        path = _fetched(parts.repo, info.sha, CONFIG, sizes, CONFIG_BYTES, token)
        try:
            ours = is_ours(path.read_bytes(), path)
        except EnhanceError:
            ours = False
    if not ours:
        raise EnhanceError(
            f"{repo} holds a model that this library did not save, and a push would overwrite it. Nothing "
            "was sent. "
            "Push to another name."
        )


def _is_path(name: str | Path) -> bool:
    """Whether a name means a folder and never the Hub, where somebody else may have one of that name."""
    if isinstance(name, str):
        plain = name.partition("@")[0]  # a revision may hold anything
        return (
            plain.startswith((".", "/", "~")) or "\\" in plain or plain.count("/") > 1 or plain.endswith("/")
        )
    return True


def _parsed(name: str, revision: str | None) -> Name:
    try:
        return parse_name(name, revision, "model")
    except StoreError as error:
        raise EnhanceError(f"{name!r} is no folder here, and no repository: {error}") from error


def _fetched(
    repo: str, commit: str, file: str, sizes: dict[str, int | None], most: int, token: str | None
) -> Path:
    """A file of a commit in the Hub's cache; nothing larger than expected is fetched."""
    from huggingface_hub import hf_hub_download

    where = f"{repo}@{commit[:12]}"
    if file not in sizes:
        there = ", ".join(sorted(sizes))[:300] or "no files"
        raise EnhanceError(
            f"{where} holds no {file} and so no saved model; it holds {there}. A model gets there by "
            f"model.push_to_hub({repo!r})."
        )
    size = sizes[file]
    if size is None or size > most:
        seen = "no size on the Hub" if size is None else f"{size:,} bytes"
        raise EnhanceError(
            f"{where}/{file} has {seen}; allowed: {most:,}. Nothing was fetched. Push the model again, or "
            "name an "
            "older revision."
        )
    return asked(
        lambda: Path(hf_hub_download(repo, file, repo_type="model", revision=commit, token=token)),
        repo,
        commit,
        token=token,
        again=passing_in_download,
        kind="model",
    )
