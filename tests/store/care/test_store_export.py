"""Exporting: what the table says is what the store says, and a spreadsheet runs none of it."""

from __future__ import annotations

import csv
import io
import json
import os

import numpy as np
import polars as pl
import pytest
from damage import flip, shards, vector_at
from killing import killed_at
from looking import rows

from msr_enhance.errors import StoreCorruptError, StoreError
from msr_enhance.store.care.export import export
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter


@pytest.mark.parametrize("kind", [int, str])
def test_json_lines_say_what_the_store_says(used, kind, tmp_path):
    path = used(kind)
    done = export(path, tmp_path / "out.jsonl", vectors=True)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for line in lines:
        line["text"] = line.pop("answer")
    assert [line["id"] for line in lines] == KnowledgeStore.load(path).ids("user")
    assert {line["id"]: line for line in lines} == rows(path)
    assert done.rows == len(lines) == 73
    export(path, tmp_path / "bare.jsonl", texts=False, level="scenario")
    assert [json.loads(line) for line in (tmp_path / "bare.jsonl").read_text().splitlines()] == [
        {"id": name, "status": "ok", "prompt_tokens": 11, "answer_tokens": 7} for name in ("Toys", "Schön 😀")
    ]


@pytest.mark.parametrize("kind", [int, str])
def test_a_parquet_file_says_what_the_store_says(used, kind, tmp_path):
    path = used(kind)
    export(path, tmp_path / "out.parquet", vectors=True)
    table, store = pl.read_parquet(tmp_path / "out.parquet"), KnowledgeStore.load(path)
    ids = store.ids("user")
    assert table["id"].to_list() == ids
    assert table["answer"].to_list() == [store.text("user", name) for name in ids]
    np.testing.assert_array_equal(np.array(table["vector"].to_list(), np.float32), store.vectors("user", ids))
    assert json.loads(table["facts"][0]) == store.record("user", ids[0]).facts


DANGEROUS = [f"{sign}cmd" for sign in "=+-@\t\r\n\0"]


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path, provenance, record):
    with StoreWriter.open(tmp_path / "store", provenance) as writer:
        writer.append("user", [record(f"{t}{n}", prompt=t, text=t) for n, t in enumerate(DANGEROUS)])
    done = export(tmp_path / "store", tmp_path / "out.csv", vectors=True)
    found = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_bytes().decode(), newline="")))
    assert [row["prompt"] for row in found] == ["'" + text for text in DANGEROUS]
    assert [row["id"] for row in found] == [f"'{text}{n}" for n, text in enumerate(DANGEROUS)]
    assert done.guarded == 3 * len(DANGEROUS)
    vector = record(f"{DANGEROUS[0]}0").vector
    assert json.loads(found[0]["vector"]) == vector.tolist()


def test_numbers_of_a_csv_file_stay_numbers(folder, tmp_path):
    export(folder, tmp_path / "out.csv", texts=False)
    assert (tmp_path / "out.csv").read_text().splitlines()[2] == "-3,empty,11,7"


def test_an_export_replaces_nothing_and_a_failed_one_leaves_nothing(used, tmp_path):
    path = used()
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(StoreError, match="there already"):
        export(path, out)
    assert out.read_text() == "mine"
    for words, says in (
        ({"out": tmp_path / "out.xlsx"}, "'.xlsx' is not known"),
        ({"out": tmp_path / "no" / "out.csv"}, "not a folder"),
        ({"out": tmp_path / "out.csv", "level": "item"}, "level 'item' is not known"),
    ):
        with pytest.raises(StoreError, match=says):
            export(path, **words)
    flip(path / shards(path)[2].vectors.name, vector_at(path, shards(path)[2], 0))
    for ending in ("jsonl", "csv", "parquet"):
        with pytest.raises(StoreCorruptError, match="store repair"):
            export(path, tmp_path / f"bad.{ending}", vectors=True)
    assert {each.name for each in tmp_path.iterdir()} == {"used", "out.jsonl"}


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_an_export_is_not_for_everybody_to_read_and_a_killed_one_is_named_after_its_file(
    used, tmp_path, ending
):
    path, out = used(), tmp_path / "here" / f"out.{ending}"
    out.parent.mkdir()
    before = os.umask(0o002)
    try:
        export(path, out)
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o640
    if ending == "parquet":  # polars has threads, and those do not live on in a process to be killed
        return
    whole = out.read_bytes()
    out.unlink()
    kills = 0
    for number in range(12, 100, 4):
        killed = killed_at(number, lambda: export(path, out))
        assert {each.name for each in out.parent.iterdir()} <= {out.name, f"{out.name}.part"}
        if killed and (part := out.with_name(f"{out.name}.part")).exists():
            kills += 1
            if not out.exists():
                with pytest.raises(StoreError, match=r"\.part is there: another export .* was killed"):
                    export(path, out)
            part.unlink()
        if out.exists():
            assert out.read_bytes() == whole
        out.unlink(missing_ok=True)
        if not killed:
            break
    assert kills


def test_rows_without_texts_are_counted(used, tmp_path):
    KnowledgeStore.load(used()).save(tmp_path / "bare", texts=False)
    done = export(tmp_path / "bare", tmp_path / "out.jsonl")
    assert done.without_texts == done.rows == 73
    assert json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["answer"] is None
