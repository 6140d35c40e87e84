"""Entries: what a manifest lists, each one immutable file or two, named by content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from msr_enhance.store.record import IdType, Level

MOST_ROWS: Final = 1 << 22
"""Rows of a shard at most: their heads are read at once."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(gt=0, lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Rows = Annotated[int, Field(gt=0, le=MOST_ROWS)]
Crc = Annotated[int, Field(ge=0, lt=2**32)]
HIGHEST_TIER: Final = 63
Tier = Annotated[int, Field(ge=0, le=HIGHEST_TIER)]
FileKind = Literal["vec", "txt", "del", "idx", "map"]


def file_name(kind: FileKind, sha256: str) -> str:
    """The name of a file with this digest."""
    return f"{kind}-{sha256[:32]}.safetensors"


class Part(BaseModel):
    """A part of a manifest: never changed, and nothing in it that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredFile(Part):
    """One immutable file; its name follows from its content, so that no manifest can point elsewhere.

    Attributes:
        kind: ``vec``, ``txt``, ``del``, ``idx`` or ``map``.
        bytes: Its size.
        sha256: Its digest.
        blob: How many of its bytes are texts, which have no fixed length: ids, or prompts and answers.
    """

    kind: FileKind
    bytes: Positive
    sha256: Sha256
    blob: Count = 0

    @property
    def name(self) -> str:
        """The name in the store's folder."""
        return file_name(self.kind, self.sha256)


class Shard(Part):
    """Rows that lie together.

    Attributes:
        level: The level they belong to.
        rows: How many.
        tier: How often they were rewritten: 0 as appended, more in a sealed shard.
        vectors: Their ids, states and vectors.
        heads: CRC-32 of all bytes of that file but the vectors, each of which has its own.
        texts: Their prompts, answers and facts; ``None`` in a copy made without texts.
    """

    level: Level
    rows: Rows
    tier: Tier = 0
    vectors: StoredFile
    heads: Crc
    texts: StoredFile | None

    def files(self) -> Iterator[StoredFile]:
        """The files that hold them."""
        yield self.vectors
        if self.texts:
            yield self.texts


class Tombstone(Part):
    """Ids whose rows in earlier shards no longer count.

    Attributes:
        level: The level they belong to.
        rows: How many.
        tier: As of a shard.
        ids: The file that lists them.
    """

    level: Level
    rows: Rows
    tier: Tier = 0
    ids: StoredFile

    def files(self) -> Iterator[StoredFile]:
        """The file that lists them."""
        yield self.ids


class Index(Part):
    """Where each row lies of the first entries of a level; whoever looks up a row need not read them.

    Attributes:
        entries: How many entries, shards and tombstones, it covers.
        covers: Which these are; it is of no use to any others.
        rows: How many ids it lists: those whose rows count.
        heads: CRC-32 of the bytes before its list, each block of which has its own.
        file: The file that holds it.
    """

    entries: Positive
    covers: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    rows: Count
    heads: Crc
    file: StoredFile

    def files(self) -> Iterator[StoredFile]:
        """The file that holds it."""
        yield self.file


class Map(Part):
    """How the vectors of a level were changed after they had been read from the language model.

    Attributes:
        level: The level.
        kind: ``int8``, with the scale of each dimension; ``project``, with mean and components.
        shape: Shape of what is kept of it: ``[width]`` or ``[dim, width before]``.
        file: The file that holds it.
    """

    level: Level
    kind: Literal["int8", "project"]
    shape: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=2)]
    file: StoredFile


class Keyed(Part):
    """Ids that stand in a store only as keyed hashes.

    Attributes:
        id_type: Type of the ids themselves.
        check: Tells whether a key is the right one.
    """

    id_type: IdType
    check: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


Entry = Shard | Tombstone


def named(entries: Sequence[Entry]) -> str:
    """What tells some entries from others: 32 hex digits of the digests of their files, in order."""
    digests = [file.sha256 for entry in entries for file in entry.files() if file.kind != "txt"]
    return hashlib.sha256("".join(digests).encode()).hexdigest()[:32]
