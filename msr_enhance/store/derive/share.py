"""Sharing: a copy of a store that may leave the machine, and nothing else in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np

from msr_enhance.atomic import write_bytes_new, write_pieces_new
from msr_enhance.errors import StoreError, not_one_of
from msr_enhance.progress import Advance
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.block import Change
from msr_enhance.store.derive import card
from msr_enhance.store.derive.make import derive
from msr_enhance.store.derive.personal import traces
from msr_enhance.store.entry import Keyed, Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.hub.upload import Pushed, push_files
from msr_enhance.store.keyed import key_check, keyed_id
from msr_enhance.store.level import LevelReader
from msr_enhance.store.manifest import Manifest, Provenance
from msr_enhance.store.record import LEVELS, STATUSES, Level
from msr_enhance.store.texts import read_blocks, split

OURS: Final = re.compile(
    r"manifest-[1-9][0-9]{0,17}\.json|(?:vec|txt|del|idx|map)-[0-9a-f]{32}\.safetensors"
    r"|(?:user|scenario)s\.jsonl|README\.md"
)
"""Names of what a push writes, and may remove from a repository."""

_SAMPLE: Final = 10
_PATH = re.compile(r"[^\s='\",;]*[/\\~$][^\s='\",;]*")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")


class Shared(NamedTuple):
    """What leaves.

    Attributes:
        files: Names of the files.
        bytes: Their size.
        rows: Rows of each level.
        ids: What ids look like: ``as they are`` or ``keyed hashes``.
        sample: The first ids of each level.
        texts: Whether prompts and answers are among it.
        traces: How many texts hold what looks personal.
    """

    files: tuple[str, ...]
    bytes: int
    rows: dict[Level, int]
    ids: str
    sample: dict[Level, list[int | str]]
    texts: bool
    traces: dict[str, int]


def share(
    source: Version,
    folder: Path,
    *,
    name: str,
    key: bytes | None,
    texts: bool = False,
    levels: Sequence[Level] | None = None,
    license: str = "other",
    advance: Advance | None = None,
) -> Shared:
    """Write what leaves the machine into a new folder, for anybody to look at before it does.

    Rows that were dropped are not in it. Facts name no folder of this machine.

    Args:
        source: The store.
        folder: A folder that is empty or not there yet.
        name: Name for the card, ``owner/name``.
        key: Users appear under ids hashed with it; None leaves the ids as they are.
        texts: Also prompts, answers and facts.
        levels: Only these levels; default: all.
        license: The licence that the card names.
        advance: Is told how many rows were written.

    Returns:
        What is in the folder.

    Raises:
        StoreError: If the store has no such rows, or the folder holds something.
        StoreCorruptError: If the store is damaged.
    """
    manifest = source.manifest
    if unknown := [level for level in levels or () if level not in LEVELS]:
        raise StoreError(not_one_of("level", unknown[0], LEVELS))
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,40}", license):
        raise StoreError(f"{license!r} is no licence of the Hub; write its short name, such as mit or other.")
    wanted = [level for level in manifest.shape if levels is None or level in levels]
    if not wanted:
        raise StoreError(f"{source.files.folder} has no rows of {', '.join(levels or ()) or 'any level'}.")
    changes: dict[Level, Change] = {
        level: Change(keep=lambda ids: np.zeros(len(ids), bool))
        for level in manifest.shape
        if level not in wanted
    }
    keyed: dict[Level, Keyed] = {}
    if key is not None and "user" in wanted:
        before = manifest.keyed.get("user")
        if before and before.check != key_check(key):
            raise StoreError(
                f"the ids of {source.files.folder} are hashed with another key; write that one, or none."
            )
        if not before:
            changes["user"] = Change(rename=partial(_renamed, key), id_type="str")
            keyed["user"] = Keyed(id_type=manifest.id_type["user"], check=key_check(key))
    found = dict(traces(_texts(source, wanted))) if texts else {}
    made = derive(
        source,
        folder,
        changes=changes,
        keyed=keyed,
        provenance=without_places(manifest.provenance),
        texts=texts,
        beside=partial(_write_beside, folder, name, texts, license),
        ours=OURS,
        advance=advance,
    )
    files = StoreFiles(folder, made.version)
    readers = {level: LevelReader(files, made, level) for level in made.shape}
    # What the manifest names and what was written beside it; never what else may be in the folder.
    names = {file.name for file in made.files()} | {made.name, card.NAME}
    names |= {f"{level}s.jsonl" for level in made.shape}
    return Shared(
        tuple(sorted(names)),
        sum((folder / file).stat().st_size for file in names),
        {level: reader.count for level, reader in readers.items()},
        "keyed hashes" if "user" in made.keyed else "as they are",
        {level: list(reader.live().ids[:_SAMPLE]) for level, reader in readers.items()},
        texts,
        found,
    )


def _renamed(key: bytes, ids: Sequence[int | str]) -> list[str]:
    return [keyed_id(key, one) for one in ids]


def _write_beside(folder: Path, name: str, texts: bool, license: str, made: Manifest) -> None:
    """The card, and what the viewer of the Hub shows."""
    files = StoreFiles(folder, made.version)
    readers = {level: LevelReader(files, made, level) for level in made.shape}
    for level, reader in readers.items():
        write_pieces_new(folder, _lines(files, made, reader), lambda _, level=level: f"{level}s.jsonl")  # type: ignore[misc]
    said = card.card(name, made, readers, texts=texts, license=license)
    write_bytes_new(folder, card.NAME, said.encode())


def push_shared(
    shared: Shared,
    folder: Path,
    repo: str,
    *,
    private: bool = True,
    revision: str | None = None,
    token: str | None = None,
    say: Callable[[str], None] | None = None,
) -> Pushed:
    """Send what ``share`` wrote, in one commit that also removes what an earlier push had there.

    Args:
        shared: What is in the folder.
        folder: The folder.
        repo: ``owner/name``.
        private: False allows a repository that everybody can read.
        revision: Branch; the default branch where it is missing.
        token: Token of the Hub.
        say: Is told what happens.

    Returns:
        The commit, and what was sent.

    Raises:
        StoreError: As ``push_files``; and if texts for the public hold what looks personal.
        StoreIOError: If the Hub cannot be reached.
    """
    if not private and shared.traces:
        seen = ", ".join(f"{count:,} with {what}" for what, count in shared.traces.items())
        raise StoreError(
            f"texts for everybody to read hold what looks personal: {seen}. Push without texts, or to a "
            "private repository; or write prompts that name no ids, and extract again."
        )
    return push_files(
        repo,
        folder,
        shared.files,
        delete=OURS,
        message="Knowledge store: " + ", ".join(f"{rows:,} {level}s" for level, rows in shared.rows.items()),
        private=private,
        public_allowed=not private,
        token=token,
        revision=revision,
        say=say,
    )


def without_places(made: Provenance) -> Provenance:
    """Provenance in which a path of this machine is only its last name, wherever one may stand."""
    kept = ("scenarios", "platform", "templates", "transforms")  # names and texts of the platform itself
    identity = {name: value if name in kept else _cleaned(value) for name, value in made.identity.items()}
    return Provenance(identity=identity, window=made.window, facts=_cleaned(made.facts))


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {_cleaned(name): _cleaned(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_cleaned(inner) for inner in value]
    return _PATH.sub(_last_name, value) if isinstance(value, str) else value


def _last_name(found: re.Match[str]) -> str:
    """What is left of a word with separators: a name of the Hub as it is, of anything else the end."""
    word = found[0]
    return word if _HUB_NAME.fullmatch(word) else re.split(r"[/\\]", word.rstrip("/\\"))[-1]


def _lines(files: StoreFiles, manifest: Manifest, reader: LevelReader) -> Iterator[bytes]:
    """A level as JSON Lines, a block at a time: ids and states, and texts where they are shared."""
    entries = manifest.entries(reader.level)
    for number, heads, _ in reader.blocks():
        shard = entries[number]
        states = zip(heads.ids, heads.status.tolist(), heads.tokens.tolist(), strict=True)
        rows = (
            {"id": name, "status": STATUSES[code], "prompt_tokens": prompt, "answer_tokens": answer}
            for name, code, (prompt, answer) in states
        )
        if isinstance(shard, Shard) and shard.texts:
            with files.open(shard.texts) as opened:
                for block in read_blocks(opened, shard.texts, shard.rows):
                    yield _joined(
                        {**next(rows), "prompt": prompt.decode(), "answer": answer.decode()}
                        for prompt, answer, _ in split(block)
                    )
        else:
            yield _joined(rows)


def _joined(rows: Iterator[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _texts(source: Version, levels: Sequence[Level]) -> Iterator[tuple[int | str | None, str]]:
    """Id and texts of each row that counts; no id for a scenario, whose name is no secret."""
    for level in levels:
        entries = source.manifest.entries(level)
        for number, heads, keep in LevelReader(*source, level).blocks():
            shard = entries[number]
            if not isinstance(shard, Shard) or not shard.texts:
                continue
            names = iter(zip(heads.ids, keep.tolist(), strict=True))
            with source.files.open(shard.texts) as opened:
                for block in read_blocks(opened, shard.texts, shard.rows):
                    # Texts first: the last step of a block must not take a name from the next one.
                    for pieces, (name, counts) in zip(split(block), names, strict=False):
                        if counts:
                            user = cast("int | str", name) if level == "user" else None
                            yield user, "\n".join(piece.decode() for piece in pieces)
