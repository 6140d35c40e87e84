"""The work of `store push`."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from msr_enhance.cli.output import emit, say, show
from msr_enhance.errors import StoreError
from msr_enhance.progress import progress
from msr_enhance.store.adopt import Version
from msr_enhance.store.derive.share import Shared, push_shared, share
from msr_enhance.store.hub.repository import parse_name
from msr_enhance.store.keyed import key_beside
from msr_enhance.store.level import LevelReader


def run(
    store: Path,
    repo: str,
    *,
    public: str | None,
    texts: bool,
    raw_ids: bool,
    key: Path | None,
    scenarios_only: bool,
    license: str,
    revision: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write what leaves, show it, and send it."""
    name = parse_name(repo, revision).repo
    if public is not None and public != name:
        raise StoreError(
            f"--public is {public!r} and the repository is {name!r}; type its name: --public {name}"
        )
    if raw_ids and key is not None:
        raise StoreError("--raw-ids and --key were both given; write the one you want.")
    if dry_run and folder is None:
        raise StoreError("--dry-run writes what would be sent; say where: --folder NEW_FOLDER")
    source = Version.of(store)
    secret = None
    keyed = not (raw_ids or scenarios_only or "user" in source.manifest.keyed)
    key_file = (key or store.with_name(f"{store.resolve().name}.idkey")) if keyed else None
    if key_file:
        made = not key_file.exists()
        secret = key_beside(key_file)
        say(
            f"key of the ids: {key_file}"
            + (" (new; keep it, nobody finds a user without it)" if made else "")
        )
    with tempfile.TemporaryDirectory(prefix="msr-enhance-push-") as place:
        staged = folder or Path(place) / "store"
        total = sum(LevelReader(*source, level).count for level in source.manifest.shape)
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
        _show(shared, name, public is not None, folder)
        data = _as_json(shared, key_file)
        if dry_run:
            if as_json:
                emit({**data, "folder": str(staged.resolve()), "sent": False})
            else:
                show(f"nothing was sent; look at {staged}")
            return
        pushed = push_shared(shared, staged, repo, private=public is None, revision=revision, say=say)
    if as_json:
        emit({**data, **asdict(pushed), "sent": True})
        return
    show(f"{pushed.url} at commit {pushed.commit} ({'private' if pushed.private else 'PUBLIC'})")
    show(f'KnowledgeStore.from_pretrained("{name}", revision="{pushed.commit}")')


def _show(shared: Shared, name: str, public: bool, folder: Path | None) -> None:
    """What leaves, in words, before it does."""
    who = "EVERYBODY" if public else "those who may read that private repository"
    say(f"what leaves for {name}, to be read by {who}:")
    for level, rows in shared.rows.items():
        ids = shared.ids if level == "user" else "as they are"
        say(f"  {rows:,} {level} rows; ids {ids}, such as {', '.join(map(repr, shared.sample[level]))}")
    say(f"  prompts and answers: {'YES' if shared.texts else 'no'}")
    for what, count in shared.traces.items():
        say(f"  warning: {count:,} texts hold {what}")
    say(f"  {len(shared.files)} files, {shared.bytes:,} bytes" + (f", in {folder}" if folder else ""))


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
