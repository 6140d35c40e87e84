"""Manifest: what is in a store and how it was made."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Final, Literal, Self

from pydantic import FailFast, Field, StringConstraints, ValidationError, field_validator

from msr_enhance.errors import StoreCorruptError, StoreVersionError
from msr_enhance.fingerprint import canonical_json, fingerprint, parse_canonical_json
from msr_enhance.store.entry import (
    Entry,
    Index,
    Keyed,
    Map,
    Part,
    Positive,
    Sha256,
    Shard,
    StoredFile,
    Tombstone,
    named,
)
from msr_enhance.store.numbers import KeptDtype
from msr_enhance.store.record import IdType, Layout, Level

FORMAT: Final = "msr-enhance-store"
FORMAT_VERSION = (2, 0)
MANIFEST_BYTES = 4 << 20
OF_PROMPTS: Final = ("scenarios", "platform", "history", "seen_rows", "seen_texts")
"""Keys of an identity that act on an answer only through its prompt, and so show in the prompt itself."""

_NAMES: Final = 64  # in one place: more than any part of a manifest has
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"')  # possessive: a long text takes no memory
_SHAPE = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=2), FailFast()]


class Provenance(Part):
    """How the rows of a store were made.

    Attributes:
        identity: What changes an answer: model, revision, templates, decoding, state, history. A store
            holds rows of one identity.
        window: What the prompts were allowed to see; part of the identity.
        facts: What is recorded and may differ between runs: versions, times, how the log was divided.
    """

    identity: dict[str, Any]
    window: dict[str, Any]
    facts: dict[str, Any] = Field(default_factory=dict)

    @field_validator("identity", "window", "facts")
    @classmethod
    def _as_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        # A tuple would be a list after reading, and an equal identity would then look changed.
        plain: dict[str, Any] = json.loads(canonical_json(value))
        return plain

    def changes(self, other: Provenance, refresh: bool = False) -> list[str]:
        """What differs between two identities, a line for each field; facts are free to differ.

        Args:
            other: The newer provenance.
            refresh: Leave out what shows in the prompts themselves: the window and ``OF_PROMPTS``.

        Returns:
            Lines ``field: old here, new there``, empty if the two are the same.
        """
        old, new = (dict(flat_fields(p._compared(refresh))) for p in (self, other))
        return [
            f"{key}: {old.get(key, '(absent)')} in the store, {new.get(key, '(absent)')} now"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]

    def _compared(self, refresh: bool) -> dict[str, Any]:
        if refresh:
            return {"identity": {k: v for k, v in self.identity.items() if k not in OF_PROMPTS}}
        return {"identity": self.identity, "window": self.window}


class Manifest(Part):
    """One version of a store.

    Attributes:
        format: Always ``msr-enhance-store``.
        format_version: Version of the layout.
        store: A random name that all versions share.
        version: Counts up with every commit.
        parent: Digest of the manifest before this one.
        shape: Shape of each level's vectors, ``(dim,)`` or ``(n_layers, dim)``.
        dtype: How vectors are kept.
        id_type: Type of each level's ids.
        provenance: How the rows were made.
        shards: The rows and what was dropped of them; of each level in the order it was written.
        index: Where the rows of each level lie; a level with few rows has none.
        maps: How vectors were changed after they had been read; empty in a store as extracted.
        keyed: Levels whose ids are keyed hashes.
    """

    format: Literal["msr-enhance-store"] = FORMAT
    format_version: tuple[int, int] = FORMAT_VERSION
    store: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    version: Annotated[int, Field(gt=0, lt=10**15)] = 1
    parent: Sha256 | None = None
    shape: dict[Level, _SHAPE] = Field(default_factory=dict)
    dtype: KeptDtype = "float32"
    id_type: dict[Level, IdType] = Field(default_factory=dict)
    provenance: Provenance
    shards: Annotated[tuple[Entry, ...], FailFast()] = ()
    index: dict[Level, Index] = Field(default_factory=dict)
    maps: Annotated[tuple[Map, ...], FailFast()] = ()
    keyed: dict[Level, Keyed] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name in the store's folder."""
        return f"manifest-{self.version}.json"

    def files(self) -> Iterator[StoredFile]:
        """Every file the manifest names."""
        for entry in self.shards:
            yield from entry.files()
        yield from (index.file for index in self.index.values())
        yield from (each.file for each in self.maps)

    def entries(self, level: Level) -> list[Entry]:
        """A level's shards and tombstones, oldest first."""
        return [entry for entry in self.shards if entry.level == level]

    def layout(self, level: Level) -> Layout:
        """What all shards of a level have in common."""
        return Layout(level, math.prod(self.shape[level]), self.dtype, self.id_type[level])

    def to_bytes(self) -> bytes:
        """The manifest with its checksum, as it stands on disk."""
        content = self.model_dump(mode="json")
        return canonical_json(content | {"checksum": fingerprint(content)})

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Self:
        """Read a manifest, strictly.

        Args:
            data: What stands on disk.
            source: Where, for messages.

        Returns:
            The manifest.

        Raises:
            StoreVersionError: If another version of the library wrote it.
            StoreCorruptError: If it is not what was written, or does not fit together.
        """
        try:
            _refuse_nested(data)
            content = parse_canonical_json(data)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            _check_version(content.get("format_version"), source)
            checksum = content.pop("checksum", None)
            _refuse_crowds(content)
            plain = canonical_json(content)
            del content  # a large one is not held twice
            if checksum != hashlib.sha256(plain).hexdigest():
                raise ValueError("its checksum does not fit its content")
            manifest = cls.model_validate_json(plain, strict=True)
            every = {entry.level for entry in manifest.shards}
            levels = {entry.level for entry in manifest.shards if isinstance(entry, Shard)}
            if not every == levels == manifest.shape.keys() == manifest.id_type.keys():
                raise ValueError("its shards, shape and id_type have different levels")
            _check_parts(manifest)
        except (ValueError, TypeError, ValidationError) as error:
            folder = source.rpartition("/")[0] or "STORE"
            raise StoreCorruptError(
                f"{source} is not a manifest as it was written: {_told(error)}. Fetch the store again, "
                f"or go back to the version before: msr-enhance store repair {folder}"
            ) from error
        return manifest


def _refuse_nested(data: bytes) -> None:
    """Refuse what holds more objects or values than any manifest; texts may hold any letters.

    A few letters may stand for an object of a hundred bytes, and so this is done before they are parsed.
    """
    most = {b"{[": len(data) // 24 + 64, b",": len(data) // 24 + 16_384}
    seen = {marks: sum(data.count(mark.to_bytes()) for mark in marks) for marks in most}
    if all(seen[marks] <= most[marks] for marks in most):
        return
    seen, at = dict.fromkeys(most, 0), 0
    for text in itertools.chain(_TEXT.finditer(data), [None]):
        end = text.start() if text else len(data)
        for marks in most:
            seen[marks] += sum(data.count(mark.to_bytes(), at, end) for mark in marks)
            if seen[marks] > most[marks]:
                raise ValueError(
                    f"it is nested or long like no manifest ({seen[marks]:,} of {marks.decode()})"
                )
        at = text.end() if text else end


def _refuse_crowds(content: dict[str, Any]) -> None:
    """Refuse parts with more names than any has, as each name would be an error of its own."""
    made = content.get("provenance")
    known = Provenance.model_fields.keys()
    parts: list[Any] = [content | {"provenance": made.keys() - known if isinstance(made, dict) else made}]
    while parts:
        part = parts.pop()
        if isinstance(part, dict | set):
            if len(part) > _NAMES:
                raise ValueError(f"it has {len(part):,} names in one place, among them {min(part)[:40]!r}")
            parts += part.values() if isinstance(part, dict) else ()
        elif isinstance(part, list):
            parts += part


def _check_parts(manifest: Manifest) -> None:
    """Refuse parts that are each well formed and do not fit together."""
    kinds = {"vec": {s.vectors for s in manifest.shards if isinstance(s, Shard)}}
    kinds["txt"] = {s.texts for s in manifest.shards if isinstance(s, Shard) and s.texts}
    kinds["del"] = {t.ids for t in manifest.shards if isinstance(t, Tombstone)}
    kinds["idx"] = {index.file for index in manifest.index.values()}
    kinds["map"] = {each.file for each in manifest.maps}
    for kind, files in kinds.items():
        if wrong := [file.name for file in files if file.kind != kind]:
            raise ValueError(f"{wrong[0]} stands where a {kind} file belongs")
    seen = set[tuple[Level, str]]()
    for entry in manifest.shards:
        if isinstance(entry, Tombstone):  # rows that were dropped in between may come again as they were
            seen = {pair for pair in seen if pair[0] != entry.level}
        elif (entry.level, entry.vectors.name) in seen:
            raise ValueError(f"it names {entry.vectors.name} twice")
        else:
            seen.add((entry.level, entry.vectors.name))
    for level, index in manifest.index.items():
        entries = manifest.entries(level)
        if index.entries > len(entries) or named(entries[: index.entries]) != index.covers:
            raise ValueError(f"its index of {level} covers other shards than these")
    if not {each.level for each in manifest.maps} | manifest.keyed.keys() <= manifest.shape.keys():
        raise ValueError("its maps or keyed ids are of a level without rows")
    scaled = {each.level for each in manifest.maps if each.kind == "int8"}
    if scaled != (set(manifest.shape) if manifest.dtype == "int8" else set()):
        raise ValueError("int8 vectors and the scales of their levels do not go together")
    for level in manifest.keyed:
        if manifest.id_type[level] != "str":
            raise ValueError(f"keyed ids of {level} are no text")


def _told(error: Exception) -> str:
    """What is wrong, by field: the first three of many."""
    if not isinstance(error, ValidationError):
        return str(error)[:300]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}"[:120] for one in found[:3]]
    return "; ".join(lines) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")


def _check_version(wrote: Any, source: str) -> None:
    if not isinstance(wrote, list) or len(wrote) != 2 or not all(type(number) is int for number in wrote):
        raise ValueError(f"its format version {wrote!r} is not two numbers")
    seen = f"{source} has format version {f'{wrote[0]}.{wrote[1]}'[:40]}"
    reads = ".".join(map(str, FORMAT_VERSION))
    if tuple(wrote) > FORMAT_VERSION:
        raise StoreVersionError(
            f"{seen}; this library reads {reads}. Write: pip install --upgrade msr-enhance"
        )
    if tuple(wrote) < FORMAT_VERSION:
        raise StoreVersionError(
            f"{seen}, written by a pre-release; this library reads {reads}. Extract again, into a new folder."
        )


def flat_fields(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a nested mapping, its names joined by dots, and its value as Python writes it."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from flat_fields(inner, f"{key}.{name}" if key else name)
    else:
        yield key, repr(value)
