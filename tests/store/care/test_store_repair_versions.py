"""Repairing a store whose newest manifest is lost: what the version below does not have is listed."""

from __future__ import annotations

import pytest
from damage import flip, held, shards
from looking import rows

from msr_enhance.errors import StoreCorruptError
from msr_enhance.store.care.repair import repair
from msr_enhance.store.care.verify import verify
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter


def test_a_damaged_newest_manifest_gives_way_to_the_version_before_only_when_asked(used, provenance):
    path = used(close=False)
    version = latest_manifest(path)[0].version
    with StoreWriter.open(path, provenance) as writer:
        before = rows(path)
        writer.drop("user", [60])
    assert len(list(path.glob("manifest-*"))) == 2
    newest = max(path.glob("manifest-*"), key=lambda each: each.stat().st_mtime_ns)
    newest = path / latest_manifest(path)[0].name
    flip(newest, 100)
    bad = newest.read_bytes()
    with pytest.raises(StoreCorruptError, match="store repair"):
        KnowledgeStore.load(path)
    before_repair = held(path)
    for dry in (True, False):
        with pytest.raises(StoreCorruptError, match=r"del-.*lists ids that were dropped.*--bring-back"):
            repair(path, dry_run=dry)
    assert held(path) == before_repair
    shown = repair(path, dry_run=True, bring_back=True)
    assert newest.read_bytes() == bad
    with pytest.raises(StoreCorruptError):
        KnowledgeStore.load(path)
    done = repair(path, bring_back=True)
    assert shown.given_up == done.given_up == (int(newest.stem.partition("-")[2]),)
    assert done.version == done.given_up[0] + 1 > version
    assert not newest.exists()
    assert (path / "damaged" / newest.name).read_bytes() == bad
    assert rows(path).keys() <= before.keys()
    assert not verify(path).findings


@pytest.mark.parametrize("last", ["user", "scenario"])
@pytest.mark.parametrize("kind", [int, str])
def test_of_a_version_that_is_given_up_the_rows_are_listed_and_a_run_reads_them_again(
    tmp_path, provenance, record, kind, last
):
    path, names = tmp_path / "store", [kind(number) for number in range(5, 40)]
    with StoreWriter.open(path, provenance) as writer:
        writer.append("user", [record(kind(number)) for number in range(5)])
        if last == "user":
            writer.append("user", [record(name) for name in names])
        else:  # a level that the version before does not have
            writer.append("scenario", [record(str(name), dim=5) for name in names])
        before = set(writer.done(last))
    flip(path / latest_manifest(path)[0].name, 100)
    said = repair(path, dry_run=True)
    done = repair(path)
    assert said.lost == done.lost
    assert set(done.lost[last]) == set(names if last == "user" else map(str, names))
    assert (done.lost.keys(), done.unnamed) == ({last}, {})
    with StoreWriter.open(path, provenance) as writer:
        assert before - set(writer.done(last)) == set(done.lost[last])
    assert not verify(path).findings


def test_a_damaged_file_of_a_version_that_is_given_up_is_counted(tmp_path, provenance, record):
    with StoreWriter.open(tmp_path / "store", provenance) as writer:
        writer.append("user", [record(number) for number in range(5)])
        writer.append("user", [record(number) for number in range(5, 40)])
    path = tmp_path / "store"
    bad = path / shards(path)[1].vectors.name
    flip(path / latest_manifest(path)[0].name, 100)
    flip(bad, bad.stat().st_size - 1)
    done = repair(path)
    assert (done.lost, done.unnamed) == ({}, {"user": 35})
    assert bad.name in {each.file for each in done.damaged}
    assert (path / "damaged" / bad.name).exists()
