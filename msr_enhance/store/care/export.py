"""Exporting: the rows of a level as a table that other programs read."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np

from msr_enhance.atomic import sync_folder
from msr_enhance.errors import StoreCorruptError, StoreError, not_one_of
from msr_enhance.progress import Advance, progress
from msr_enhance.store.adopt import Version
from msr_enhance.store.care.gather import read_texts
from msr_enhance.store.commit import writing
from msr_enhance.store.entry import Shard
from msr_enhance.store.files import StoreFiles
from msr_enhance.store.index import ROW_BITS
from msr_enhance.store.level import LevelReader
from msr_enhance.store.record import STATUSES, Level
from msr_enhance.store.seal import BLOCK_ROWS
from msr_enhance.store.texts import split

Kind = Literal["jsonl", "csv", "parquet"]
Row = dict[str, Any]

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\0")

_GROUP: Final = 8 * BLOCK_ROWS  # rows that polars holds before it writes them


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        path: The file.
        level: The level.
        rows: How many rows it has.
        without_texts: How many of these have none in the store, and so none in the file.
        columns: Its columns.
        guarded: How many cells of a CSV file got a quote in front, as a spreadsheet would run them.
    """

    path: Path
    level: Level
    rows: int
    without_texts: int
    columns: tuple[str, ...]
    guarded: int


class _Counts:
    def __init__(self) -> None:
        self.rows = self.bare = self.guarded = 0


def export(
    path: str | Path,
    out: str | Path,
    *,
    level: Level = "user",
    vectors: bool = False,
    texts: bool = True,
) -> Exported:
    """Write the rows of a level that count to a new file, in the order they were written.

    The file appears whole or not at all; until then it has ``.part`` after its name. Only some rows are held
    in memory at once. In a CSV file, a text that a spreadsheet would run as a formula gets a quote in front.

    Args:
        path: The store's folder.
        out: A path that ends in ``.jsonl``, ``.csv`` or ``.parquet``, and where nothing is.
        level: ``user`` or ``scenario``.
        vectors: Also write the vectors.
        texts: Also write prompts, answers and facts.

    Returns:
        What was written.

    Raises:
        StoreCorruptError: If a row is not what was written; no file appears.
        StoreError: If there is no such level, the file is there already or ends in something else, or the
            disk refuses.
    """
    target, version = Path(out), Version.of(path)
    kind = _kind(target)
    if level not in version.manifest.shape:
        raise StoreError(f"{path}: {not_one_of('level', level, version.manifest.shape)}")
    if os.path.lexists(target):
        raise StoreError(f"{target} is there already, and an export replaces nothing; write another path.")
    if not target.parent.is_dir():
        raise StoreError(f"{target.parent} is not a folder; make it, or write another path.")
    columns = ["id", "status", "prompt_tokens", "answer_tokens"]
    columns += ["prompt", "answer", "facts"] if texts else []
    columns += ["vector"] if vectors else []
    reader, counts = LevelReader(version.files, version.manifest, level), _Counts()
    with progress("exporting", reader.count) as advance, writing(target.parent, str(target.name)):
        blocks = _blocks(reader, version, vectors, texts, counts, advance)
        with _part(target) as (temporary, descriptor):
            if kind == "parquet":
                _parquet(temporary, blocks, columns, version.manifest.id_type[level], reader.shape)
            else:
                with open(descriptor, "wb", closefd=False) as file:
                    file.writelines(_csv(blocks, columns, counts) if kind == "csv" else map(_jsonl, blocks))
            os.fsync(descriptor)
            _publish(temporary, target)
    return Exported(target, level, counts.rows, counts.bare, tuple(columns), counts.guarded)


def _kind(path: Path) -> Kind:
    for kind in KINDS:
        if path.suffix == f".{kind}":
            return kind
    raise StoreError(not_one_of("ending", path.suffix, [f".{kind}" for kind in KINDS], f"Seen: {path.name}."))


@contextlib.contextmanager
def _part(target: Path) -> Iterator[tuple[Path, int]]:
    """An empty file beside the target, gone afterwards; one that a killed export left is named by its name.

    It may be somebody's, or be written just now, and so it is never replaced.
    """
    path = target.with_name(target.name + ".part")
    try:
        # The umask takes bits away from 0640; polars would give everybody the right to read.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    except FileExistsError as error:
        raise StoreError(
            f"{path} is there: another export writes {target.name} now, or one was killed. If none runs, "
            "remove that file, then run the same command again."
        ) from error
    try:
        yield path, descriptor
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _publish(temporary: Path, target: Path) -> None:
    """Give a finished file its name, unless somebody took it meanwhile."""
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise StoreError(f"{target} appeared meanwhile; nothing was replaced. Write another path.") from error
    except OSError:  # a file system without links
        os.rename(temporary, target)
    sync_folder(target.parent)


def _blocks(
    reader: LevelReader, version: Version, vectors: bool, texts: bool, counts: _Counts, advance: Advance
) -> Iterator[list[Row]]:
    """Rows in portions."""
    entries = version.manifest.entries(reader.level)
    for number, heads, keep in reader.blocks():
        entry = entries[number]
        if not isinstance(entry, Shard):
            continue
        live = np.flatnonzero(keep)
        for rows in np.array_split(live, -(-len(live) // BLOCK_ROWS)) if len(live) else ():
            ids: list[Any] = [heads.ids[row] for row in rows.tolist()]
            states = zip(ids, heads.status[rows].tolist(), heads.tokens[rows].tolist(), strict=True)
            found: list[Row] = [
                {"id": name, "status": STATUSES[code], "prompt_tokens": asked, "answer_tokens": said}
                for name, code, (asked, said) in states
            ]
            if texts:
                for row, some in zip(found, _texts(version.files, entry, rows, counts), strict=True):
                    row.update(some)
            if vectors:
                shape = (len(rows), *reader.shape)
                given = reader.vectors(ids, (np.int64(number) << ROW_BITS) + rows).reshape(shape)
                for row, vector in zip(found, given, strict=True):
                    row["vector"] = vector
            counts.rows += len(found)
            advance(len(found))
            yield found


def _texts(files: StoreFiles, shard: Shard, rows: Any, counts: _Counts) -> list[Row]:
    """Prompt, answer and facts of some rows of a shard, each compared with its checksum."""
    if shard.texts is None:
        counts.bare += len(rows)
        return [{"prompt": None, "answer": None, "facts": None} for _ in rows]
    with files.open(shard.texts) as opened:
        found, good = read_texts(opened, shard.texts, shard.rows, rows)
    if not good.all():
        raise StoreCorruptError(
            f"{files.path(shard.texts)} has {int((~good).sum())} rows whose texts are not what was written. "
            f"Write: msr-enhance store repair {files.folder}, or --no-texts."
        )
    return [
        {"prompt": prompt.decode(), "answer": answer.decode(), "facts": json.loads(facts)}
        for prompt, answer, facts in split((found.lengths, b"".join(found.texts)))
    ]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=np.ndarray.tolist)


def _jsonl(rows: Iterable[Row]) -> bytes:
    return "".join(_json(row) + "\n" for row in rows).encode()


def _csv(blocks: Iterable[list[Row]], columns: list[str], counts: _Counts) -> Iterator[bytes]:
    def cell(value: Any) -> Any:
        text = _json(value) if isinstance(value, dict | np.ndarray) else value
        if isinstance(text, str) and text.startswith(_FORMULA):
            counts.guarded += 1
            return "'" + text
        return text

    yield (",".join(columns) + "\r\n").encode()
    for rows in blocks:
        page = io.StringIO()
        writer = csv.writer(page, lineterminator="\r\n")  # else a lone CR in a cell stays bare
        writer.writerows([cell(row[column]) for column in columns] for row in rows)
        yield page.getvalue().encode()


def _parquet(
    path: Path, blocks: Iterable[list[Row]], columns: list[str], id_type: str, shape: tuple[int, ...]
) -> None:
    """Write a Parquet file as rows come; facts are JSON, as they differ from row to row."""
    import polars as pl
    from polars.io.plugins import register_io_source

    kinds: dict[str, Any] = dict.fromkeys(columns, pl.String)
    kinds |= {"id": pl.Int64 if id_type == "int" else pl.String, "prompt_tokens": pl.Int32}
    kinds |= {"answer_tokens": pl.Int32}
    if "vector" in columns:
        kinds["vector"] = pl.List(pl.Float32) if len(shape) == 1 else pl.List(pl.List(pl.Float32))
    schema = pl.Schema(kinds)

    failed = list[Exception]()  # what polars hands on is an error of its own

    def frames(*_: Any) -> Iterator[pl.DataFrame]:
        try:
            for rows in blocks:
                for row in rows:
                    if row.get("facts") is not None:
                        row["facts"] = _json(row["facts"])
                given: dict[str, Any] = {name: [row[name] for row in rows] for name in columns}
                if "vector" in given:
                    given["vector"] = np.stack(given["vector"])
                yield pl.DataFrame(given, schema_overrides=schema).cast(schema)
        except Exception as error:
            failed.append(error)
            raise

    try:
        register_io_source(frames, schema=schema).sink_parquet(path, row_group_size=_GROUP)
    except Exception as error:
        raise (failed[0] if failed else error) from error
