"""The work of `store compact`, `verify`, `repair`, `forget` and `export`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import typer

from msr_enhance.cli.output import emit, say, show
from msr_enhance.cli.problems import EXIT_CODES
from msr_enhance.cli.show import as_id
from msr_enhance.errors import StoreCorruptError, StoreError, UnknownIdError
from msr_enhance.store.care.compact import compact
from msr_enhance.store.care.export import export
from msr_enhance.store.care.forget import Forgotten, forget
from msr_enhance.store.care.repair import Repaired, repair
from msr_enhance.store.care.verify import verify
from msr_enhance.store.keyed import read_key
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.numbers import KeptDtype
from msr_enhance.store.record import Level

_UNDONE = (
    "This did not reach: copies, merged stores and the parts they were made of, exports, backups, caches, "
    "what a disk keeps of removed files, and models that were trained with these rows.",
    "On the Hub: push the store again, then squash the history of the repository and permanently delete its "
    "LFS files (both cannot be undone); forks and caches of others stay.",
)


def run_compact(path: Path, out: Path | None, dtype: str | None, *, now: bool = False, as_json: bool) -> None:
    """Compact a store, and say what that gave."""
    done = compact(path, out, cast("KeptDtype | None", dtype), at_once=now)
    if as_json:
        emit(_plain(asdict(done)))
    elif not done.changed:
        show(f"{done.path} is compact already; {'no row' if now else 'nothing'} was changed")
    else:
        rows = ", ".join(f"{count:,} {level} rows" for level, count in done.rows.items()) or "no rows"
        show(f"{done.path}: version {done.version}, {rows}, {done.removed:,} dropped rows are gone")
        show(
            f"{done.bytes_before:,} bytes in {done.files_before:,} files before, "
            f"{done.bytes_after:,} in {done.files_after:,} now"
        )
        for level, share in (done.kept_energy or {}).items():
            show(f"{level}: kept {share:.4%} of the squares of the vectors")
    if now:
        say(f"{done.erased:,} files were removed at once; {path / 'damaged'}, copies and exports were not")
    elif done.changed and out is None:
        say("the files that were replaced are removed by the next writer, once readers had 10 minutes")


def run_verify(path: Path, *, as_json: bool) -> None:
    """Read every byte of a store, and list all that is wrong."""
    report = verify(path)
    if as_json:
        findings = [finding._asdict() for finding in report.findings]
        emit(_plain(asdict(report)) | {"findings": findings, "whole": not findings})
    else:
        for finding in report.findings:
            show(f"{finding.file}: {finding.what} [{finding.rows}]\n  {finding.help}")
        rows = ", ".join(f"{count:,} {level} rows" for level, count in report.rows.items()) or "no rows"
        result = f"{len(report.findings)} findings" if report.findings else "as it was written"
        show(f"{report.path}: version {report.version}, {rows}, {report.dead:,} dropped rows: {result}")
        show(f"{report.bytes:,} bytes in {report.files:,} files, {report.seconds:.1f} seconds")
        if report.unknown:
            show(f"left alone, not of the store: {', '.join(report.unknown[:10])}")
        if report.waiting:
            show(f"{len(report.waiting):,} files that no version needs wait for the next writer")
    if report.findings:
        raise typer.Exit(EXIT_CODES[StoreCorruptError])


def run_repair(path: Path, *, keep_vectors: bool, bring_back: bool, dry_run: bool, as_json: bool) -> None:
    """Make a damaged store whole, and say what is lost."""
    done = repair(path, keep_vectors=keep_vectors, bring_back=bring_back, dry_run=dry_run)
    if as_json:
        damaged = [wrong._asdict() for wrong in done.damaged]
        emit(_plain(asdict(done)) | {"damaged": damaged, "dry_run": dry_run})
        return
    if not done.damaged:
        show(f"{done.path} is as it was written; nothing was changed")
        return
    _say_repair(done, dry_run)


def _say_repair(done: Repaired, dry_run: bool) -> None:
    for wrong in done.damaged:
        show(f"{wrong.file}: {wrong.what}")
    would = "would be" if dry_run else "is"
    for version in done.given_up:
        show(
            f"version {version} {would} given up; rows that only it named are lost, and listed as far as "
            "their files are there"
        )
    for level, names in done.lost.items():
        first = ", ".join(repr(name)[:80] for name in names[:10]) + (", …" if len(names) > 10 else "")
        show(f"{level}: {len(names):,} rows lost: {first}")
    for level, count in done.unnamed.items():
        show(f"{level}: up to {count:,} rows lost whose ids cannot be read")
    for level, count in done.bare.items():
        show(f"{level}: {count:,} rows keep their vector and lost their texts")
    if dry_run:
        show(f"nothing was changed; to repair, write: msr-enhance store repair {done.path}")
        return
    show(f"{done.path}: version {done.version}")
    for path in done.kept:
        show(f"kept: {path}")
    if done.lost or done.unnamed or done.given_up:
        say(
            "to read the lost rows again, give the command that made the store once more: msr-enhance "
            f"extract --data LOG --model MODEL --out {done.path}, with the same options"
        )


def run_forget(
    path: Path,
    users: list[str],
    scenarios: list[str],
    ids: Path | None,
    key: Path | None,
    *,
    missing_ok: bool,
    as_json: bool,
) -> None:
    """Erase rows, and say what was searched and what cannot be undone."""
    store = KnowledgeStore.load(path)
    secret = read_key(key) if key else None
    rows: dict[Level, list[int | str]] = {
        "user": [as_id(store, "user", text, secret is not None) for text in users],
        "scenario": list(scenarios),
    }
    if ids:
        rows["user"] += _listed(store, ids, secret is not None)
    done = forget(path, rows, key=secret, missing_ok=missing_ok)
    if as_json:
        emit(_plain(asdict(done)) | {"absence": done.absence._asdict(), "not_undone": list(_UNDONE)})
    else:
        _say_forgotten(done)
    if done.absence.left:
        raise typer.Exit(EXIT_CODES[StoreError])


def _say_forgotten(done: Forgotten) -> None:
    for level, count in done.ids.items():
        show(f"{level}: {count:,} ids forgotten, {done.rows[level]:,} rows of them erased")
    for level, names in done.missing.items():
        show(f"{level}: {len(names):,} ids were not in the store")
    seen = done.absence
    show(f"{done.path}: version {done.version}, {done.files_removed:,} files removed at once")
    show(
        f"searched: all {seen.bytes:,} bytes of {seen.files:,} files; the ids are in no list and no index, "
        f"{seen.looked_for:,} vectors and texts of them in no file"
    )
    if seen.skipped:
        show(f"not searched for: {seen.skipped:,} values that are short or zeros, and mean nobody")
    if seen.shared:
        show(f"{seen.shared:,} values are somebody else's too, and stay in that row")
    for name, count in seen.left.items():
        show(f"STILL IN {name}: {count:,} of them; the store does not read this file, remove it yourself")
    for line in _UNDONE:
        show(line)


def _listed(store: KnowledgeStore, path: Path, with_key: bool) -> list[int | str]:
    """Ids from a file: one on each line, in a `.jsonl` file as JSON or as an object with `id`."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} could not be read as text: {error}. Write a file with one id a line."
        ) from error
    found = list[int | str]()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if path.suffix != ".jsonl":
            found.append(as_id(store, "user", line.strip(), with_key))
            continue
        try:
            value = json.loads(line)
            found.append(value["id"] if isinstance(value, dict) else value)
        except (ValueError, KeyError) as error:
            raise UnknownIdError(
                f'{path}, line {number} is no id: {line[:80]!r}. Write 7, "u7" or {{"id": 7}}.'
            ) from error
    return found


def run_export(path: Path, out: Path, level: str, *, vectors: bool, texts: bool, as_json: bool) -> None:
    """Write the rows of a store to a table."""
    done = export(path, out, level=cast("Level", level), vectors=vectors, texts=texts)
    if as_json:
        emit(_plain(asdict(done)))
        return
    show(f"{done.path}: {done.rows:,} {done.level} rows, columns {', '.join(done.columns)}")
    if done.without_texts:
        show(f"{done.without_texts:,} rows have no texts in the store")
    if done.guarded:
        show(f"{done.guarded:,} cells got a quote in front, so that no spreadsheet runs them")


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON has them."""
    return {
        name: [str(each) if isinstance(each, Path) else each for each in value]
        if isinstance(value, tuple)
        else (str(value) if isinstance(value, Path) else value)
        for name, value in values.items()
    }
