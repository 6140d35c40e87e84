"""The work of `store push`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from msr_enhance.cli.output import emit, say, show
from msr_enhance.errors import StoreError
from msr_enhance.progress import progress
from msr_enhance.store.adopt import Version
from msr_enhance.store.derive.share import Shared, push_shared, share
from msr_enhance.store.hub.remote import remote_manifest
from msr_enhance.store.hub.repository import parse_name
from msr_enhance.store.keyed import key_beside, key_check
from msr_enhance.store.level import LevelReader
from msr_enhance.store.manifest import Manifest


def run(
    store: Path,
    repo: str,
    *,
    public: str | None,
    texts: bool,
    raw_ids: bool,
    key: Path | None,
    new_key: bool,
    scenarios_only: bool,
    license: str,
    revision: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write what leaves, show it, and send it."""
    name = parse_name(repo, revision).repo
    source = Version.of(store)
    _check(source.manifest, store, name, public, raw_ids, key, scenarios_only)
    if dry_run and folder is None:
        raise StoreError("--dry-run writes what would be sent; say where: --folder NEW_FOLDER")
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreError(f"--folder {folder} is not empty; write the path of a new folder.")
    hashes = "user" in source.manifest.shape and not (
        raw_ids or scenarios_only or "user" in source.manifest.keyed
    )
    key_file = (key or store.resolve().with_name(f"{store.resolve().name}.idkey")) if hashes else None
    there = None if dry_run else remote_manifest(repo, revision, None)
    secret = _key(key_file, there, name, new_key) if key_file else None
    total = sum(LevelReader(*source, level).count for level in source.manifest.shape)
    # Beside the folder it is kept in, so that moving it there at the end copies nothing.
    beside = None if folder is None else folder.absolute().parent
    with _ended_by_signals(), tempfile.TemporaryDirectory(prefix=".msr-enhance-push-", dir=beside) as place:
        staged = Path(place) / "store"
        with progress("writing what is shared", total) as advance:
            shared = share(
                source,
                staged,
                name=name,
                key=secret,
                texts=texts,
                levels=("scenario",) if scenarios_only else None,
                license=license,
                advance=advance,
            )
        _show(shared, name, public is not None)
        data = {**_as_json(shared, key_file), "sent": not dry_run}
        if not dry_run:
            pushed = push_shared(shared, staged, repo, private=public is None, revision=revision, say=say)
            data |= asdict(pushed)
        if folder is not None:
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
            os.rename(staged, folder)
            data["folder"] = str(folder.resolve())
    if as_json:
        emit(data)
    elif dry_run:
        show(f"nothing was sent; look at {folder}")
    else:
        show(f"{pushed.url} at commit {pushed.commit} ({'private' if pushed.private else 'PUBLIC'})")
        show(f'KnowledgeStore.from_pretrained("{name}", revision="{pushed.commit}")')


def _check(
    manifest: Manifest,
    store: Path,
    name: str,
    public: str | None,
    raw_ids: bool,
    key: Path | None,
    scenarios_only: bool,
) -> None:
    """Refuse options that say two things."""
    if public is not None and public != name:
        raise StoreError(
            f"--public is {public!r} and the repository is {name!r}; type its name: --public {name}"
        )
    if raw_ids and key is not None:
        raise StoreError("--raw-ids and --key were both given; write the one you want.")
    if scenarios_only and (raw_ids or key is not None):
        raise StoreError("--scenarios-only sends no users; leave --raw-ids and --key out.")
    if "user" in manifest.keyed and (raw_ids or key is not None):
        raise StoreError(f"the ids of {store} are keyed hashes already; leave --raw-ids and --key out.")


def _key(path: Path, there: Manifest | None, name: str, new: bool) -> bytes:
    """The key in a file, made where there is none; another than the repository's only when asked for."""
    made = not path.exists()
    before = there.keyed["user"].check if there and "user" in there.keyed else None
    if before and made and not new:
        raise StoreError(
            f"{name} holds ids of a key, and there is none in {path}. Write --key with the file that it was "
            "pushed with; or --new-key, and nobody finds a user with the old one any more."
        )
    secret = key_beside(path)
    if before and before != key_check(secret) and not new:
        raise StoreError(
            f"{name} holds ids of another key than {path}. Write --key with the file that it was pushed "
            "with; or --new-key, and nobody finds a user with the old one any more."
        )
    say(f"key of the ids: {path}" + (" (new; keep it, nobody finds a user without it)" if made else ""))
    if path.stat().st_mode & 0o077:
        say(f"warning: others may read {path}; write: chmod 600 {path}")
    return secret


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the work like an interrupt does, so that the copy is removed."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _show(shared: Shared, name: str, public: bool) -> None:
    """What leaves, in words, before it does."""
    who = "EVERYBODY" if public else "those who may read that private repository"
    say(f"what leaves for {name}, to be read by {who}:")
    for level, rows in shared.rows.items():
        ids = shared.ids if level == "user" else "as they are"
        say(f"  {rows:,} {level} rows; ids {ids}, such as {', '.join(map(repr, shared.sample[level]))}")
    say(f"  prompts and answers: {'YES' if shared.texts else 'no'}")
    for what, count in shared.traces.items():
        say(f"  warning: {count:,} texts hold {what}")
    say(f"  {len(shared.files)} files, {shared.bytes:,} bytes; what was pushed before stays in the history")


def _as_json(shared: Shared, key_file: Path | None) -> dict[str, Any]:
    return {
        "rows": shared.rows,
        "ids": shared.ids,
        "texts": shared.texts,
        "traces": shared.traces,
        "files": list(shared.files),
        "bytes": shared.bytes,
        "key_file": str(key_file.resolve()) if key_file else None,
    }
