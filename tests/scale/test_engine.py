"""Parts made by worker processes are one store in the end, whatever dies on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from part_reads import USERS, Complete, Missing, Reader, Reads, table
from part_works import Notes

from msr_enhance.errors import DataError, ModelError, MsrEnhanceError, Stopped, StoreError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.scale.engine import run_parts
from msr_enhance.scale.part import Part
from msr_enhance.scale.parts_folder import PartsFolder
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.merge import join
from msr_enhance.store.versions import latest_manifest
from msr_enhance.store.writer import StoreWriter

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """The store that one process makes."""
    return KnowledgeExtractor(Reader()).extract(table(), tmp_path_factory.mktemp("whole") / "s")


def same(store, whole):
    """Whether two stores hold the same rows, in any order."""
    assert set(store.levels) == {"user", "scenario"}
    for level in store.levels:
        ids = whole.ids(level)
        assert sorted(store.ids(level)) == sorted(ids)
        assert store.vectors(level, ids).tobytes() == whole.vectors(level, ids).tobytes()
        assert [store.record(level, name).prompt for name in ids] == [
            whole.record(level, name).prompt for name in ids
        ]
    return True


def parts_of(out):
    return out.with_name(f"{out.name}.parts")


def test_parts_of_processes_are_the_store_of_one(tmp_path, whole):
    store = run_parts(Reads(), tmp_path / "s", parts=5, workers=2)
    assert same(store, whole)
    assert store.path == tmp_path / "s"
    assert not parts_of(store.path).exists(), "nothing is left beside the store"


def test_a_worker_that_is_killed_in_the_middle_of_a_part_costs_only_its_batch(tmp_path, whole):
    """Two of the 40 prompts kill the process that first reads them."""
    store = run_parts(Reads("01", str(tmp_path)), tmp_path / "s", parts=4, workers=2, retries=5)
    kills = [path for path in tmp_path.iterdir() if len(path.name) == 64]
    assert len(kills) >= 2
    assert len(list(tmp_path.glob("*.try"))) == 4 + len(kills)
    assert same(store, whole)


def test_more_parts_than_users(tmp_path, whole):
    assert same(run_parts(Reads(), tmp_path / "s", parts=45, workers=1), whole)


def test_a_run_whose_parent_was_killed_goes_on(tmp_path, whole):
    out = tmp_path / "s"
    code = (
        "from part_reads import Reads; from msr_enhance.scale.engine import run_parts\n"
        "if __name__ == '__main__': "
        f"run_parts(Reads('', {str(tmp_path)!r}, 0.15), {str(out)!r}, parts=6, workers=2)"
    )
    script = tmp_path / "go.py"
    script.write_text(code, "utf-8")
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen([sys.executable, str(script)], env=environment) as parent:
        while not list(parts_of(out).glob("*.json")):
            time.sleep(0.02)
        parent.send_signal(signal.SIGKILL)
    assert 1 <= len(list(parts_of(out).glob("*.json"))) < 6
    time.sleep(0.3)  # the orphans notice
    tried = set(tmp_path.glob("*.try"))
    finished = PartsFolder(out)
    left = [part for part in Part.all(6) if not finished.finished(part)]
    assert same(run_parts(Reads(marks=str(tmp_path)), out, parts=6, workers=1), whole)
    again = {path.name.partition(".")[0] for path in set(tmp_path.glob("*.try")) - tried}
    assert again == {part.name for part in left}, "finished parts are not begun again"


def test_a_stop_keeps_what_is_done_and_the_same_call_goes_on(tmp_path, whole):
    out = tmp_path / "s"
    with pytest.raises(Stopped):
        run_parts(
            Reads(seconds=0.2),
            out,
            parts=2,
            workers=1,
            stop=lambda: len(list(parts_of(out).glob("*/vec-*"))) > 2,
        )
    kept = [KnowledgeStore.load(store, verify=True) for store in PartsFolder(out).stores()]
    rows = sum(len(store.ids("user")) for store in kept if "user" in store.levels)
    assert 0 < rows < USERS
    assert same(run_parts(Reads(), out, parts=2, workers=1), whole), "the wish to stop was for one run"


def test_a_store_that_is_there_and_unprepared_is_complete(tmp_path):
    out = tmp_path / "s"
    before = run_parts(Reads(), out, parts=2, workers=1).fingerprint
    assert run_parts(Notes(does=((0, "die"), (1, "die"))), out, parts=2).fingerprint == before


def test_a_run_killed_between_joining_and_clearing_up_goes_on(tmp_path, whole):
    out = tmp_path / "s"
    folder = PartsFolder(out)
    folder.path.mkdir()
    for part in Part.all(2):
        Reads()(part, folder.store(part))
        folder.finish(part)
    before = join([folder.store(part) for part in Part.all(2)], out).fingerprint
    store = run_parts(Notes(does=((0, "die"), (1, "die"))), out, parts=2)
    assert store.fingerprint == before
    assert same(store, whole)
    assert not list(folder.path.glob("part-*-of-00002"))


@dataclass(frozen=True)
class FirstUsers:
    """Adds to a store of the first users: what prepares, and what makes the parts."""

    out: str

    def __call__(self, part, folder):
        there = set(KnowledgeStore.load(self.out).ids("user"))

        class Rest:
            index = -1

            def holds(self, name):
                return name not in there and part.holds(name)

        Reads().extractor().extract(table(), folder, part=Rest())


def is_short(part, out):
    return len(KnowledgeStore.load(out).ids("user")) < USERS


def test_what_a_store_lacks_is_made_in_parts_and_joined_to_it(tmp_path, whole):
    out = tmp_path / "s"
    Reads().extractor().extract(table(), out, limit=11)
    store = run_parts(FirstUsers(str(out)), out, parts=3, workers=1, prepare=is_short)
    assert same(store, whole)
    assert store.ids("user")[:11] == whole.ids("user")[:11]
    before = store.fingerprint
    again = run_parts(Notes(does=((0, "die"),)), out, parts=3, workers=1, prepare=is_short)
    assert again.fingerprint == before, "nothing is missing, so nothing is begun"


# Errors


def test_a_part_that_cannot_be_made_is_named_and_the_others_are_kept(tmp_path, whole):
    out = tmp_path / "s"
    with pytest.raises(
        MsrEnhanceError, match=r"(?s)1 of 3 parts.*part-00001-of-00003.*exit code 3"
    ) as failed:
        run_parts(ExitsAt(1), out, parts=3, workers=1, retries=0)
    assert str(parts_of(out)) in str(failed.value)
    assert not out.exists()
    marks = sorted(path.stem for path in parts_of(out).glob("*.json"))
    assert marks == ["part-00000-of-00003", "part-00002-of-00003"]
    assert same(run_parts(Reads(), out, parts=3, workers=1), whole)


@dataclass(frozen=True)
class ExitsAt(Reads):
    """One part of it ends the process."""

    index: int = 0

    def __init__(self, index):
        super().__init__()
        object.__setattr__(self, "index", index)

    def __call__(self, part, folder):
        if part.index == self.index:
            os._exit(3)
        super().__call__(part, folder)


def test_a_declared_error_keeps_its_class_and_its_words_once(tmp_path):
    with pytest.raises(ModelError) as failed:
        run_parts(Notes(does=tuple((n, "declare") for n in range(9))), tmp_path / "s", parts=9, workers=1)
    assert str(failed.value).count("no model for part-") <= 2
    assert "of 9 parts could not be made" in str(failed.value)


def test_another_number_of_parts_is_refused_while_some_are_begun(tmp_path):
    out = tmp_path / "s"
    PartsFolder(out).store(Part(0, 4)).mkdir(parents=True)
    with pytest.raises(DataError, match=r"begun with 4 parts, not 6\. Write --parts 4"):
        run_parts(Reads(), out, parts=6)


def test_a_second_run_at_the_same_time_is_refused(tmp_path):
    out = tmp_path / "s"
    with PartsFolder(out).held(), pytest.raises(StoreError, match="another run is working"):
        run_parts(Reads(), out, parts=2)


def test_a_mark_counts_for_its_key_and_its_store_alone(tmp_path):
    out, part = tmp_path / "s", Part(0, 2)
    folder = PartsFolder(out, "one")
    folder.path.mkdir()
    Reads(options={"limit": 10})(part, folder.store(part))
    assert not folder.finished(part)
    folder.finish(part)
    assert folder.finished(part)
    assert not PartsFolder(out, "two").finished(part)
    assert PartsFolder(out, "two").finished(part, by_anyone=True)
    Reads()(part, folder.store(part))
    assert not folder.finished(part), "its store has changed"
    folder.finish(part)
    for data in (b"", b"{}", b"[1]", b"\xff"):
        (folder.path / f"{part.name}.json").write_bytes(data)
        assert not folder.finished(part)
        assert not folder.finished(part, by_anyone=True)


def test_work_that_is_nowhere_to_be_seen_is_an_error(tmp_path):
    """Machines without a common disk; an error for every part, as no store is seen for any."""
    with pytest.raises(StoreError, match=r"not to be seen from here.*all machines share"):
        run_parts(Elsewhere(), tmp_path / "s", parts=2, workers=1)


class Elsewhere:
    def __call__(self, part, folder):
        return None


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"engine": "spark"}, DataError, "'spark' is not known; allowed: 'processes', 'ray'"),
        ({"workers": 0}, DataError, "0 workers"),
        ({"retries": -1}, DataError, "retries is -1"),
        ({"parts": 0}, DataError, "0 parts"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, kind, said):
    with pytest.raises(kind, match=said):
        run_parts(Reads(), tmp_path / "s", **{"parts": 2, **options})
    assert list(tmp_path.iterdir()) == []


def test_an_out_that_is_something_else(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(StoreError, match="is a file"):
        run_parts(Reads(), tmp_path / "file", parts=2)
    with pytest.raises(StoreError, match="no store"):
        run_parts(Reads(), tmp_path, parts=2)


def test_an_out_of_dots(tmp_path, monkeypatch, whole):
    (tmp_path / "s").mkdir()
    monkeypatch.chdir(tmp_path / "s")
    assert same(run_parts(Reads(), Path(), parts=2, workers=1), whole)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_run_by_one_worker_in_between_ends_in_the_same_store(tmp_path, whole):
    """Killed parts, then a local run over some of their users, then the parts again."""
    out = tmp_path / "s"
    work = Reads()
    for part in Part.all(3)[:2]:
        work(part, PartsFolder(out).store(part))
    KnowledgeExtractor(Reader()).extract(table(), out, limit=25)
    store = run_parts(work, out, parts=3, workers=1, prepare=Missing())
    same(store, whole)
    assert not out.with_name("s.parts").exists()


def test_parts_that_were_joined_and_left_do_not_block_a_store_that_has_gone_on(tmp_path, whole):
    out = tmp_path / "s"
    folder = PartsFolder(out)
    for part in Part.all(2):
        Reads()(part, folder.store(part))
        folder.finish(part)
    join([folder.store(part) for part in Part.all(2)], out)
    manifest, _ = latest_manifest(out)
    newer = manifest.provenance.model_copy(update={"window": {"later": 1}})
    writer = StoreWriter.open(out, newer, refresh=True)
    writer.drop("user", [])
    store = run_parts(Reads(), out, parts=2, workers=1)
    assert store.provenance.window == {"later": 1}
    assert sorted(store.ids("user")) == sorted(whole.ids("user"))
    assert not folder.path.exists()


def test_parts_of_other_work_are_not_removed(tmp_path, whole):
    out = tmp_path / "s"
    KnowledgeExtractor(Reader()).extract(table(), out)
    folder = PartsFolder(out)
    other = KnowledgeExtractor(Reader(), history=3)
    other.llm.identity = {"reader": "another"}
    other.extract(table(), folder.store(Part(0, 2)), part=Part(0, 2))
    run_parts(Reads(), out, parts=2, workers=1, prepare=Complete())
    assert KnowledgeStore.load(folder.store(Part(0, 2))).ids("user")
