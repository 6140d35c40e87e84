"""StoreWriter: adds rows to a store, a durable commit at a time, and resumes where a run ended."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from msr_enhance.atomic import TEMPORARY, create_exclusive, write_bytes_new
from msr_enhance.errors import StoreError, StoreIdentityError, not_one_of
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import (
    MANIFEST_BYTES,
    Manifest,
    Provenance,
    Shard,
    StoredFile,
    highest_version,
    latest_manifest,
    manifest_versions,
)
from msr_enhance.store.record import LEVELS, STATUSES, IdType, Level, Record, exact_id
from msr_enhance.store.shard import encode_texts, encode_vectors

Dtype = Literal["float32", "float16"]


class StoreWriter:
    """The write side of a store.

    A row counts once ``append`` has returned: its shard is on disk and a manifest names it. A run that
    ends earlier leaves files that no manifest names, and readers do not see them.

    Attributes:
        path: The store's folder.
    """

    def __init__(
        self, path: Path, manifest: Manifest, data: bytes, done: dict[Level, set[int | str]]
    ) -> None:
        """Continue after a manifest; use ``StoreWriter.open``."""
        self.path = path
        self._manifest = manifest
        self._digest = hashlib.sha256(data).hexdigest()
        self._done = done

    @classmethod
    def open(cls, path: str | Path, provenance: Provenance, dtype: Dtype = "float32") -> Self:
        """Create a store, or resume one.

        Args:
            path: A folder that is empty, not there yet, or a store made the same way.
            provenance: How the rows will be made.
            dtype: How vectors are kept.

        Returns:
            The writer.

        Raises:
            StoreIdentityError: If the store was made another way; lists old and new, field by field.
            StoreError: If the folder holds something else, or cannot be written.
            StoreCorruptError: If the store to resume is damaged.
        """
        folder = Path(path)
        if highest_version(folder):
            return cls._resume(folder, provenance, dtype)
        if folder.exists() and not folder.is_dir():
            raise StoreError(f"{folder} is a file; a store is a folder. Write another path.")
        if folder.is_dir() and (
            other := [p.name for p in folder.iterdir() if not p.name.startswith(TEMPORARY)]
        ):
            raise StoreError(
                f"{folder} holds {other[0]!r} and is no store; write the path of a new or empty folder."
            )
        manifest = Manifest(store=uuid.uuid4().hex, dtype=dtype, provenance=provenance)
        try:
            folder.mkdir(0o750, parents=True, exist_ok=True)
            create_exclusive(folder, manifest.name, manifest.to_bytes())
        except FileExistsError as error:
            raise _other_writer(folder) from error
        except OSError as error:
            raise StoreError(f"a store cannot be made in {folder}: {error}. Write another path.") from error
        return cls(folder, manifest, manifest.to_bytes(), {level: set() for level in LEVELS})

    @classmethod
    def _resume(cls, folder: Path, provenance: Provenance, dtype: Dtype) -> Self:
        manifest, data = latest_manifest(folder)
        changes = manifest.provenance.changes(provenance)
        if dtype != manifest.dtype:
            changes.append(f"dtype: {manifest.dtype!r} in the store, {dtype!r} now")
        if changes:
            raise StoreIdentityError(
                f"{folder} was made another way, and rows of two kinds do not mix:\n  "
                + "\n  ".join(line[:300] for line in changes[:20])
                + f"\nAsk for what the store has, or write into a new folder, for example {folder}-2."
            )
        store = KnowledgeStore(folder, manifest, data, verify=True)
        done: dict[Level, set[int | str]] = {level: set() for level in LEVELS}
        for level in store.levels:
            done[level].update(store.ids(level))
        manifest = manifest.model_copy(update={"provenance": provenance})
        return cls(folder, manifest, data, done)

    def done(self, level: Level) -> set[int | str]:
        """The ids a level has, whatever their status."""
        if level not in LEVELS:
            raise StoreError(not_one_of("level", level, LEVELS))
        return self._done[level].copy()

    def append(self, level: Level, records: Sequence[Record]) -> None:
        """Commit rows, all or none; they are durable when this returns.

        Args:
            level: ``user`` or ``scenario``.
            records: The rows, with new ids of one type and vectors of one width.

        Raises:
            StoreError: If an id is not new or of another type, a vector is not finite or of another width,
                another writer came first, or the disk refuses. The store is as before.
        """
        done = self.done(level)
        if not records:
            return
        ids = [exact_id(record.id) for record in records]
        kind = self._id_type(level, ids)
        if twice := [name for name, n in Counter(ids).items() if n > 1 or name in done]:
            raise StoreError(
                f"{len(twice)} {level} ids come twice or are in {self.path} already: "
                f"{', '.join(map(repr, twice[:10]))}. Leave out what writer.done({level!r}) has."
            )
        vectors = self._vectors(level, ids, records)
        try:
            contents = encode_vectors(level, ids, records, vectors), encode_texts(records)
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{level} ids {ids[0]!r} to {ids[-1]!r} have a text that is not Unicode, or facts that are "
                f"not JSON: {error}. Facts may hold text, finite numbers, lists, and mappings by text."
            ) from error
        self._commit(level, kind, vectors.shape, contents)
        self._done[level].update(ids)

    def _id_type(self, level: Level, ids: Sequence[int | str]) -> IdType:
        kinds: set[IdType] = {"int" if isinstance(name, int) else "str" for name in ids}
        kind: IdType = self._manifest.id_type.get(level, min(kinds))
        if kinds != {kind}:
            raise StoreError(
                f"{level} ids of type {' and '.join(sorted(kinds))} were given; {self.path} takes {kind}. "
                f"Write {kind}(id)."
            )
        return kind

    def _vectors(
        self, level: Level, ids: Sequence[int | str], records: Sequence[Record]
    ) -> npt.NDArray[np.floating[Any]]:
        """The vectors as they are kept; rows that are not ok are zeros."""
        dim = self._manifest.dim.get(level) or np.size(records[0].vector)
        kept = np.zeros((len(records), dim), self._manifest.dtype)
        for row, name, record in zip(kept, ids, records, strict=True):
            if record.status not in STATUSES:
                raise StoreError(f"{level} {name!r}: {not_one_of('status', record.status, STATUSES)}")
            if not (0 <= record.prompt_tokens < 2**31 and 0 <= record.answer_tokens < 2**31):
                raise StoreError(f"{level} {name!r} has token counts outside 0 to 2**31; count them again.")
            if np.shape(record.vector) != (dim,) or not dim:
                raise StoreError(
                    f"the vector of {level} {name!r} has shape {np.shape(record.vector)}; {self.path} holds "
                    f"[{dim}]. Vectors of another model need a store of their own."
                )
            if record.status == "ok":
                with np.errstate(over="ignore"):  # looked at right below
                    row[:] = record.vector
                if not np.isfinite(row).all():
                    raise StoreError(
                        f"the vector of {level} {name!r} is not finite as {self._manifest.dtype}. "
                        "Write dtype='float32' if it was finite before, else status='failed'."
                    )
        return kept

    def _commit(
        self, level: Level, kind: IdType, shape: tuple[int, ...], contents: tuple[bytes, bytes]
    ) -> None:
        vectors, texts = (
            StoredFile(kind=of, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for of, data in zip(("vec", "txt"), contents, strict=True)
        )
        old = self._manifest
        shard = Shard(level=level, rows=shape[0], vectors=vectors, texts=texts)
        new = old.model_copy(
            update={
                "version": old.version + 1,
                "parent": self._digest,
                "dim": old.dim | {level: shape[1]},
                "id_type": old.id_type | {level: kind},
                "shards": (*old.shards, shard),
            }
        )
        data = new.to_bytes()
        if len(data) > MANIFEST_BYTES:
            raise StoreError(
                f"{self.path} has too many shards ({len(new.shards):,}); append more rows at once."
            )
        try:
            # Data before the name that makes it count: a crash between the two loses only this batch.
            for file, content in zip((vectors, texts), contents, strict=True):
                write_bytes_new(self.path, file.name, content)
            create_exclusive(self.path, new.name, data)
        except FileExistsError as error:
            raise _other_writer(self.path) from error
        except OSError as error:
            raise StoreError(
                f"{shape[0]} {level} rows could not be written to {self.path}: {error}. Rows committed "
                "before are safe; make room and run the same command again."
            ) from error
        # A faster writer may have made and removed this version already, and then a higher one stands.
        if highest_version(self.path) > new.version:
            (self.path / new.name).unlink(missing_ok=True)
            raise _other_writer(self.path)
        self._manifest, self._digest = new, hashlib.sha256(data).hexdigest()
        for version in manifest_versions(self.path):
            if version < new.version - 1:  # the one before stays for a reader about to open it
                with contextlib.suppress(OSError):  # the rows are committed, whatever is left lying about
                    (self.path / f"manifest-{version}.json").unlink()


def _other_writer(folder: Path) -> StoreError:
    return StoreError(
        f"another writer is adding to {folder}; nothing of this batch was added. "
        "Let the other end, then run the same command again."
    )
