"""Entries: what a manifest lists, each one immutable file or two, named by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from msr_enhance.store.record import Level

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(gt=0, lt=2**63)]
Tier = Annotated[int, Field(ge=0, lt=64)]
FileKind = Literal["vec", "txt", "del"]


def file_name(kind: FileKind, sha256: str) -> str:
    """The name of a file with this digest."""
    return f"{kind}-{sha256[:32]}.safetensors"


class Part(BaseModel):
    """A part of a manifest: never changed, and nothing in it that is not declared."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoredFile(Part):
    """One immutable file; its name follows from its content, so that no manifest can point elsewhere.

    Attributes:
        kind: ``vec``, ``txt`` or ``del``.
        bytes: Its size.
        sha256: Its digest.
    """

    kind: FileKind
    bytes: Positive
    sha256: Sha256

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
        texts: Their prompts, answers and facts; ``None`` in a copy made without texts.
    """

    level: Level
    rows: Positive
    tier: Tier = 0
    vectors: StoredFile
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
    rows: Positive
    tier: Tier = 0
    ids: StoredFile

    def files(self) -> Iterator[StoredFile]:
        """The file that lists them."""
        yield self.ids


Entry = Shard | Tombstone
