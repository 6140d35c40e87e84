"""Manifest: what is in a store and how it was made."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, ValidationError, field_validator

from msr_enhance.errors import StoreCorruptError, StoreError, StoreVersionError
from msr_enhance.fingerprint import canonical_json, fingerprint, parse_canonical_json
from msr_enhance.store.entry import Entry, Part, Positive, Sha256, Shard, StoredFile
from msr_enhance.store.record import IdType, Level
from msr_enhance.store.shard import Layout

FORMAT: Final = "msr-enhance-store"
FORMAT_VERSION = (1, 1)
MANIFEST_BYTES = 64 << 20
OF_PROMPTS: Final = ("scenarios", "platform", "history", "seen_rows", "seen_texts")
"""Keys of an identity that act on an answer only through its prompt, and so show in the prompt itself."""

_NAME = re.compile(r"manifest-([1-9][0-9]{0,17})\.json")
_SHAPE = Annotated[tuple[Positive, ...], Field(min_length=1, max_length=2)]


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
        old, new = (dict(_flat(p._compared(refresh))) for p in (self, other))
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
    """

    format: Literal["msr-enhance-store"] = FORMAT
    format_version: tuple[int, int] = FORMAT_VERSION
    store: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    version: Positive = 1
    parent: Sha256 | None = None
    shape: dict[Level, _SHAPE] = Field(default_factory=dict)
    dtype: Literal["float32", "float16"] = "float32"
    id_type: dict[Level, IdType] = Field(default_factory=dict)
    provenance: Provenance
    shards: tuple[Entry, ...] = ()

    @property
    def name(self) -> str:
        """The name in the store's folder."""
        return f"manifest-{self.version}.json"

    def files(self) -> Iterator[StoredFile]:
        """Every file the manifest names."""
        for entry in self.shards:
            yield from entry.files()

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
            content = parse_canonical_json(data)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            _check_version(content.get("format_version"), source)
            checksum = content.pop("checksum", None)
            if checksum != fingerprint(content):
                raise ValueError("its checksum does not fit its content")
            manifest = cls.model_validate_json(canonical_json(content), strict=True)
            every = {entry.level for entry in manifest.shards}
            levels = {entry.level for entry in manifest.shards if isinstance(entry, Shard)}
            if not every == levels == manifest.shape.keys() == manifest.id_type.keys():
                raise ValueError("its shards, shape and id_type have different levels")
        except (ValueError, TypeError, ValidationError) as error:
            raise StoreCorruptError(
                f"{source} is not a manifest as it was written: {error}. "
                "Fetch the store again, or extract into a new folder."
            ) from error
        return manifest


def latest_manifest(folder: Path) -> tuple[Manifest, bytes]:
    """The highest version in a folder; a damaged one is an error, never skipped.

    Args:
        folder: The store's folder.

    Returns:
        The manifest and its bytes.

    Raises:
        StoreError: If there is no store.
        StoreCorruptError: If the manifest is damaged.
    """
    for _ in range(100):  # a writer may remove the version we saw before we open it
        version = highest_version(folder)
        if not version:
            what = "has no manifest-<n>.json" if folder.is_dir() else "is not a folder"
            raise StoreError(
                f"{folder} {what}; a store is a folder with manifest-<n>.json and the vec-*.safetensors that "
                f"it names. Write: msr-enhance extract --data LOG --model MODEL --out {folder}"
            )
        path = folder / f"manifest-{version}.json"
        try:
            if path.stat().st_size > MANIFEST_BYTES:
                raise StoreCorruptError(f"{path} is larger than {MANIFEST_BYTES >> 20} MiB; no manifest is.")
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        manifest = Manifest.from_bytes(data, str(path))
        if manifest.version != version:
            raise StoreCorruptError(f"{path} says it is version {manifest.version}; a file was renamed.")
        return manifest, data
    raise StoreError(f"{folder} changes faster than it can be read; try again.")


def highest_version(folder: Path) -> int:
    """The highest manifest version in a folder, 0 where there is none."""
    return max(manifest_versions(folder), default=0)


def manifest_versions(folder: Path) -> list[int]:
    """All manifest versions in a folder, in no order."""
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [
        int(match[1]) for name in names if name.startswith("manifest-") and (match := _NAME.fullmatch(name))
    ]


def _check_version(wrote: Any, source: str) -> None:
    if not isinstance(wrote, list) or len(wrote) != 2 or not all(type(number) is int for number in wrote):
        raise ValueError(f"its format version {wrote!r} is not two numbers")
    seen = f"{source} has format version {wrote[0]}.{wrote[1]}"
    reads = ".".join(map(str, FORMAT_VERSION))
    if tuple(wrote) > FORMAT_VERSION:
        raise StoreVersionError(
            f"{seen}; this library reads {reads}. Write: pip install --upgrade msr-enhance"
        )
    if tuple(wrote) < FORMAT_VERSION:
        raise StoreVersionError(
            f"{seen}, written by a pre-release; this library reads {reads}. Extract again, into a new folder."
        )


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, repr(value)
