"""Files that no version names, and what they say of themselves: rows and dropped ids, without a manifest."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, cast
from zlib import crc32

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store.entry import MOST_ROWS, StoredFile
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.frame import Array
from msr_enhance.store.numbers import KIND
from msr_enhance.store.record import IdType, Layout, Level
from msr_enhance.store.shard import checked_frame, read_heads, read_ids, read_vectors

_HEADER: Final = 4096  # bytes; one with seven tensors has fewer than a thousand
_LEVEL = re.compile(rb'"__metadata__":\{"level":"(user|scenario)"\}')
_TENSOR = re.compile(rb'"(\w{1,16})":\{"dtype":"(\w{1,4})","shape":\[(\d{1,15})(?:,(\d{1,15}))?\]')


class Unnamed(NamedTuple):
    """A file with ids that no version names.

    Attributes:
        path: Where it lies.
        dropped: Whether it lists ids that were dropped; otherwise it holds rows.
        level: The level, None where that cannot be read.
        rows: How many ids it should have, 0 where that cannot be read.
        ids: The ids in order, None where the file is not what was written.
        kept: How a manifest would name it, and its layout; None where it holds no rows.
    """

    path: Path
    dropped: bool
    level: Level | None
    rows: int
    ids: list[Any] | None
    kept: tuple[StoredFile, Layout] | None = None

    def vectors(self, rows: Array) -> Array:
        """Vectors of some rows as they are kept; see ``read_vectors``."""
        if self.ids is None or self.kept is None:
            raise StoreError(f"{self.path} holds no rows that can be read.")
        file, layout = self.kept
        with StoreFiles(self.path.parent, 0).open(file) as opened:
            frame = checked_frame(opened, file, self.rows, layout)
            return read_vectors(opened, frame, [self.ids[row] for row in rows.tolist()], rows)


def unnamed(folder: Path, names: Collection[str]) -> Iterator[Unnamed]:
    """Read those of some files that hold rows or list dropped ids.

    The name of a file is its digest, and so a file that has it is what was written. Its header says how
    many rows it has and of what; it is then compared with the one that such rows get, byte for byte.

    Args:
        folder: The store's folder.
        names: Names of files in it that no version names.

    Yields:
        Each of them.

    Raises:
        StoreIOError: If the disk refuses to read.
    """
    for name in sorted(names):
        if name.startswith(("vec-", "del-")):
            yield _read(folder / name)


def _read(path: Path) -> Unnamed:
    dropped, digest = path.name.startswith("del-"), path.name[4:36]
    found = Unnamed(path, dropped, None, 0, None)
    try:
        size = path.lstat().st_size
        file = StoredFile(kind="del" if dropped else "vec", bytes=size, sha256=digest + "0" * 32)
        with StoreFiles(path.parent, 0).open(file) as opened:
            said = _said(bytes(opened.read(0, min(size, _HEADER))), dropped)
            if said is None:
                return found
            layout, rows, blob = said
            found = found._replace(level=layout.level, rows=rows)
            if opened.digest()[:32] != digest:
                return found
            file = file.model_copy(update={"blob": blob})
            if dropped:
                return found._replace(ids=list(read_ids(opened.read(0, size), file, rows, layout)))
            vectors = checked_frame(opened, file, rows, layout).spans["vectors"]
            crc = crc32(opened.read(vectors.end, size), crc32(opened.read(0, vectors.start)))
            ids = list[Any](read_heads(opened, file, rows, layout, crc).ids)
            return found._replace(ids=ids, kept=(file, layout))
    except (StoreCorruptError, ValueError, FileNotFoundError):
        return found  # with what is known of it


def _said(header: bytes, dropped: bool) -> tuple[Layout, int, int] | None:
    """Layout, rows and bytes of text ids that a header speaks of; it is compared as a whole later."""
    level = _LEVEL.search(header)
    sizes = {name: (kind, int(rows), int(width or 1)) for name, kind, rows, width in _TENSOR.findall(header)}
    id_type: IdType = "int" if b"ids" in sizes else "str"
    _, rows, _ = sizes.get(b"ids") or sizes.get(b"id_offsets") or (b"", 0, 1)
    rows -= id_type == "str"
    kind, _, width = sizes.get(b"vectors", (b"F32", 0, 1))
    dtype = {each.encode(): name for name, each in KIND.items()}.get(kind)
    if level is None or dtype is None or dropped == (b"vectors" in sizes) or not 0 < rows <= MOST_ROWS:
        return None
    layout = Layout(cast("Level", level[1].decode()), width, dtype, id_type)
    return layout, rows, sizes.get(b"id_bytes", (b"", 0, 1))[1]
