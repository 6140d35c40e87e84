import subprocess
import sys

import numpy as np
import pytest
from looking import contents

from msr_enhance.errors import StoreCorruptError, StoreError, UnknownIdError
from msr_enhance.store import seal
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter


@pytest.fixture
def store(folder):
    return KnowledgeStore.load(folder)


def test_what_was_written_is_read(store, record, provenance):
    assert set(store.levels) == {"user", "scenario"}
    assert (store.dim("user"), store.dim("scenario")) == (3, 5)
    assert store.ids("user") == [7, -3, 2**63 - 1, 0, 1]
    assert store.ids("scenario") == ["Toys", "Schön 😀"]
    assert store.known("user") == [7, 2**63 - 1, 1]
    assert store.statuses("user") == ["ok", "empty", "ok", "failed", "ok"]
    assert store.provenance == provenance
    assert repr(store).endswith("store', version=4, scenario=[2, 5], user=[5, 3])")
    for level, name, status in [
        ("user", 7, "ok"),
        ("user", 0, "failed"),
        ("user", 1, "ok"),
        ("scenario", "Toys", "ok"),
    ]:
        seen, wrote = store.record(level, name), record(name, status, dim=store.dim(level))
        assert (seen.vector == wrote.vector).all()
        assert {**vars(seen), "vector": 0} == {**vars(wrote), "vector": 0}
        assert store.text(level, name) == wrote.text


def test_vectors_come_in_the_order_asked(store, record):
    asked = [1, 7, -3, 1, 0]
    seen = store.vectors("user", asked)
    assert seen.dtype == np.float32
    zeros = np.zeros(3, np.float32)
    expected = [record(1).vector, record(7).vector, zeros, record(1).vector, zeros]
    assert (seen == np.stack(expected)).all()
    assert (store.vectors("user", np.array(asked)) == seen).all()
    assert store.vectors("scenario", []).shape == (0, 5)


def test_vectors_are_copies(store):
    store.vectors("user", store.ids("user"))[:] = 9
    store.record("user", 7).vector[:] = 9
    store.ids("user").clear()
    assert (store.vectors("user", store.ids("user")) < 9).all()


def test_unknown_ids_are_refused_or_zero(store, record):
    with pytest.raises(UnknownIdError, match=r"^11 user ids .*: 100, 101, .*109, …\. .*unknown='zero'"):
        store.vectors("user", [7, *range(100, 111), 100])
    seen = store.vectors("user", [100, 7], unknown="zero")
    assert (seen == np.stack([np.zeros(3), record(7).vector])).all()
    with pytest.raises(UnknownIdError, match="1 user ids"):
        store.text("user", 100)
    with pytest.raises(StoreError, match=r"'zeros'.*'zero'"):
        store.vectors("user", [7], unknown="zeros")


@pytest.mark.parametrize(
    ("level", "ids"),
    [
        ("user", ["7"]),
        ("user", [7, 7.0]),
        ("user", [True]),
        ("user", np.array([7.0])),
        ("user", np.array([True])),
        ("user", [None]),
        ("scenario", [7]),
        ("scenario", [b"Toys"]),
    ],
)
@pytest.mark.parametrize("unknown", ["error", "zero"])
def test_ids_of_another_type_name_the_right_one(store, level, ids, unknown):
    right = {"user": "int", "scenario": "str"}[level]
    with pytest.raises(UnknownIdError, match=rf"are {right}\. Write {right}\(id\)"):
        store.vectors(level, ids, unknown=unknown)


def test_numpy_ids_of_the_right_type_are_fine(store):
    assert (store.vectors("user", [np.int32(7)]) == store.vectors("user", [7])).all()
    assert (store.vectors("scenario", np.array(["Toys"])) == store.vectors("scenario", ["Toys"])).all()


def test_a_level_that_is_not_there(tmp_path, provenance, record):
    StoreWriter.open(tmp_path, provenance).append("user", [record(1)])
    store = KnowledgeStore.load(tmp_path)
    assert store.levels == ("user",)
    for call in (store.dim, store.ids, store.known, store.statuses, lambda level: store.vectors(level, [])):
        with pytest.raises(StoreError, match=r"level 'scenario' .*allowed: 'user'"):
            call("scenario")


def test_save_and_load_are_byte_equal(folder, tmp_path):
    store = KnowledgeStore.load(folder)
    store.save(tmp_path / "once")
    KnowledgeStore.load(tmp_path / "once").save(tmp_path / "twice")
    once, twice = contents(tmp_path / "once"), contents(tmp_path / "twice")
    assert once == twice
    newest = f"manifest-{store.version}.json"
    left = {"lock", f"manifest-{store.version - 1}.json"}
    assert once == {name: data for name, data in contents(folder).items() if name not in left}
    assert newest in once
    assert KnowledgeStore.load(tmp_path / "twice").fingerprint == store.fingerprint


def test_save_without_texts_keeps_them_home(folder, tmp_path):
    store = KnowledgeStore.load(folder)
    store.save(tmp_path / "bare", texts=False)
    bare = KnowledgeStore.load(tmp_path / "bare")
    assert (bare.vectors("user", bare.ids("user")) == store.vectors("user", store.ids("user"))).all()
    assert not any(
        word in data for data in contents(bare.path).values() for word in (b"prompt of", b"answer", b"shown")
    )
    assert bare.fingerprint != store.fingerprint
    with pytest.raises(StoreError, match="saved without texts"):
        bare.text("user", 7)
    bare.save(tmp_path / "again")
    bare.save(tmp_path / "third", texts=False)
    assert contents(bare.path) == contents(tmp_path / "again") == contents(tmp_path / "third")


def test_save_never_overwrites(folder, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("mine")
    for place in (folder, tmp_path / "full", tmp_path / "full" / "a"):
        with pytest.raises(StoreError, match=r"empty folder|is a file"):
            KnowledgeStore.load(folder).save(place)


def test_nothing_to_load_says_what_was_looked_for(tmp_path):
    for place, what in ((tmp_path, "has no manifest"), (tmp_path / "absent", "is not a folder")):
        with pytest.raises(StoreError, match=rf"{what}.*manifest-<n>\.json.*vec-\*\.safetensors.*extract"):
            KnowledgeStore.load(place)


def test_files_no_manifest_names_are_ignored(folder):
    before = KnowledgeStore.load(folder)
    for name in (
        "README.md",
        ".tmp-0123",
        f"vec-{'0' * 32}.safetensors",
        "manifest-99.json.bak",
        "manifest-099.json",
    ):
        (folder / name).write_bytes(b"rubbish")
    assert KnowledgeStore.load(folder).fingerprint == before.fingerprint


@pytest.fixture
def tiny(tmp_path, provenance, record, monkeypatch):
    """A store with a file of every kind that a run writes, and as few bytes as that takes."""
    monkeypatch.setattr(seal, "FULL", 2)
    with StoreWriter.open(tmp_path / "written", provenance) as writer:
        writer.append("user", [record(name, dim=1, prompt="p", facts={}) for name in ("a", "b")])
        writer.drop("user", ["b"])
    KnowledgeStore.load(writer.path).save(tmp_path / "tiny")
    kinds = sorted(path.name[:3] for path in (tmp_path / "tiny").iterdir())
    assert kinds == ["del", "idx", "man", "txt", "vec"]
    return tmp_path / "tiny"


def flips(folder):
    """Flip one bit of each byte of each file in turn."""
    for path in sorted(folder.iterdir()):
        good = path.read_bytes()
        for place in range(len(good)):
            bad = bytearray(good)
            bad[place] ^= 1 << place % 8
            path.write_bytes(bad)
            yield path.name, place
        path.write_bytes(good)


def test_every_flipped_byte_is_found(tiny):
    tested = 0
    for _ in flips(tiny):
        with pytest.raises(StoreError):
            KnowledgeStore.load(tiny, verify=True)
        tested += 1
    assert tested > 2000
    assert KnowledgeStore.load(tiny, verify=True).ids("user") == ["a"]


def test_every_flipped_byte_is_found_by_whoever_reads_the_row(tiny, record):
    """Without one look at a digest of a whole file."""
    good = record("a", dim=1, prompt="p", facts={})
    unseen = []
    for place in flips(tiny):
        try:
            store = KnowledgeStore.load(tiny)
            assert store.ids("user") == ["a"], place
            seen = store.record("user", "a")
        except StoreError:
            continue
        assert {**vars(seen), "vector": seen.vector[0]} == {**vars(good), "vector": good.vector[0]}, place
        unseen.append(place)
    # What is left is of the row that was dropped: its vector, its texts and their checksum.
    texts = [place for name, place in unseen if name.startswith("txt")]
    assert len(unseen) - len(texts) == 4
    assert len(texts) < 60
    assert {name[:3] for name, _ in unseen} == {"txt", "vec"}


@pytest.mark.parametrize("kind", ["vec", "txt"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[:-1], lambda data: data + b"\0", None]
)
@pytest.mark.parametrize("verify", [True, False])
def test_cut_grown_and_missing_files_are_found(folder, kind, damage, verify):
    path = next(folder.glob(f"{kind}-*"))
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(StoreCorruptError, match=rf"{path.name} .*(it is missing|it has [0-9,]+ bytes)"):
        KnowledgeStore.load(folder, verify=verify)


def test_damaged_texts_are_found_when_read(folder):
    for path in folder.glob("txt-*"):
        path.write_bytes(path.read_bytes().replace(b"answer", b"Answer"))
    store = KnowledgeStore.load(folder)
    with pytest.raises(StoreCorruptError, match=r"txt-.*a checksum of its texts .*rows 0 to 0.*store repair"):
        store.text("user", 7)
    with pytest.raises(StoreCorruptError, match=r"txt-.*SHA-256"):
        KnowledgeStore.load(folder, verify=True)


def test_one_damaged_vector_is_found_when_read_and_no_other_row_suffers(folder, record):
    wrong = record(1).vector.tobytes()
    (path,) = (path for path in folder.glob("vec-*") if wrong in path.read_bytes())
    path.write_bytes(path.read_bytes().replace(wrong, b"\x00\x00\x80\x3f" + wrong[4:]))
    store = KnowledgeStore.load(folder)
    assert (store.vectors("user", [0, 7])[1] == record(7).vector).all()
    with pytest.raises(StoreCorruptError, match=rf"{path.name}.*checksum of 1 rows .*row 1.*store repair"):
        store.vectors("user", [7, 1, 0])


def test_reading_a_store_needs_no_torch(folder):
    code = (
        "import sys; from msr_enhance.store.knowledge import KnowledgeStore; "
        f"KnowledgeStore.load({str(folder)!r}); "
        "sys.exit(bool({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
