"""Verifying: a whole store has no findings; a damaged one has all of them, each with what helps."""

from __future__ import annotations

import random

import numpy as np
import pytest
from damage import empty, flip, gone, ids_of, shards, text_at, vector_at, zeros
from looking import entries

from msr_enhance.errors import StoreError
from msr_enhance.store.care.verify import verify
from msr_enhance.store.entry import Tombstone
from msr_enhance.store.files import put
from msr_enhance.store.index import write_index
from msr_enhance.store.record import STATUSES
from msr_enhance.store.shard import write_vectors
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


@pytest.mark.parametrize("kind", [int, str])
def test_a_store_as_it_was_written_has_no_findings(used, kind):
    path = used(kind)
    (path / "notes.txt").write_text("mine")
    report = verify(path)
    assert report.findings == ()
    assert report.rows == {"user": 73, "scenario": 2}
    assert report.dead == 20
    assert report.unknown == ("notes.txt",)
    manifest, data = latest_manifest(path)
    assert report.bytes == sum({f.name: f.bytes for f in manifest.files()}.values()) + len(data)
    assert report.files == 1 + len({f.name for f in manifest.files()})


@pytest.mark.parametrize("harm", [empty, gone, zeros])
@pytest.mark.parametrize("place", ["vectors", "texts", "ids", "index", "manifest", "before"])
def test_a_file_that_is_gone_cut_or_zeroed_is_found(used, harm, place):
    path = used()
    manifest = latest_manifest(path)[0]
    name = {
        "vectors": shards(path)[1].vectors.name,
        "texts": shards(path)[1].texts.name,
        "ids": next(e for e in entries(path) if isinstance(e, Tombstone)).ids.name,
        "index": manifest.index["user"].file.name,
        "manifest": manifest.name,
        "before": f"manifest-{manifest.version - 1}.json",
    }[place]
    harm(path / name)
    if harm is gone and place in ("manifest", "before"):  # then it is another version, or nobody misses it
        return
    findings = verify(path).findings
    assert [finding.file for finding in findings] == [name]
    assert f"msr-enhance store repair {path}" in findings[0].help


def test_every_flipped_bit_is_found_and_the_rows_are_named(used):
    path = used(str)
    draw = random.Random(1)
    names = [file.name for file in latest_manifest(path)[0].files()]
    for name in dict.fromkeys(names):
        whole = (path / name).read_bytes()
        for _ in range(12):
            flip(path / name, draw.randrange(len(whole)))
            assert [finding.file for finding in verify(path).findings] == [name]
            (path / name).write_bytes(whole)
    assert not verify(path).findings
    first = shards(path)[0]
    flip(path / first.vectors.name, vector_at(path, first, 3))
    ids = ids_of(path, first)
    (finding,) = verify(path).findings
    assert "checksum of the vector does not fit in 1 rows (3)" in finding.what
    assert finding.rows == f"user, {first.rows} rows from {min(ids)!r} to {max(ids)!r}"


def test_all_findings_are_listed_not_only_the_first(used):
    path = used()
    one, two, three = shards(path)[:3]
    flip(path / one.vectors.name, vector_at(path, one, 0))
    flip(path / two.texts.name, text_at(two))
    (path / three.vectors.name).unlink()
    flip(path / latest_manifest(path)[0].index["user"].file.name, -1)
    assert len(verify(path).findings) == 4


def test_checksums_that_fit_do_not_hide_what_no_store_may_hold(tmp_path, provenance, record, monkeypatch):
    """A writer with a bug: every checksum is right, and the numbers are not."""
    writer = StoreWriter.open(tmp_path / "bad", provenance)
    monkeypatch.setattr("msr_enhance.store.writer.write_vectors", _spoiled)
    writer.append("user", [record(1), record(2, "failed"), record(3)])
    found = [finding.what for finding in verify(writer.path).findings]
    assert found == ["NaN or infinity in the vector in 1 rows (2)", "numbers without knowledge in 1 rows (1)"]


def _spoiled(folder, layout, heads, vectors):
    block = np.concatenate(list(vectors))
    block[2, 0] = np.nan
    block[heads.status == STATUSES.index("failed"), 1] = 5
    return write_vectors(folder, layout, heads, [block])


def test_an_index_that_lists_other_rows_is_found_though_its_checksums_fit(used, monkeypatch):
    path = used()
    manifest = latest_manifest(path)[0]
    index = manifest.index["user"]
    from msr_enhance.store import index as module
    from msr_enhance.store.files import StoreFiles

    real = module._live

    def swapped(rows, gone):
        rows = real(rows, gone).copy()
        rows[[3, 4], -1] = rows[[4, 3], -1]
        return rows

    monkeypatch.setattr(module, "_live", swapped)
    files = StoreFiles(path, manifest.version)
    wrong = write_index(files, manifest.layout("user"), entries(path)[: index.entries])
    new = manifest.model_copy(update={"index": {"user": wrong}, "version": manifest.version + 1})
    (path / new.name).write_bytes(new.to_bytes())
    monkeypatch.undo()
    found = [finding.what for finding in verify(path).findings]
    assert any("lists other rows" in what for what in found)


def test_a_version_that_does_not_follow_from_the_one_before_is_found(used):
    path = used()
    manifest = latest_manifest(path)[0]
    new = manifest.model_copy(update={"version": manifest.version + 1, "parent": "0" * 64})
    (path / new.name).write_bytes(new.to_bytes())
    (finding,) = verify(path).findings
    assert finding.file == manifest.name
    assert "does not follow" in finding.what


def test_what_is_no_store_is_an_error(tmp_path):
    with pytest.raises(StoreError, match="has no manifest"):
        verify(tmp_path)


def test_files_that_wait_for_the_next_writer_are_counted_and_no_damage(used):
    path = used()
    (path / ".tmp-1").write_bytes(b"half")
    left = put(path, "vec", [b"left by a run that ended"])
    report = verify(path)
    assert not report.findings
    assert {".tmp-1", left.name} <= set(report.waiting)
