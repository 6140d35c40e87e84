import numpy as np
import pytest

from msr_enhance.errors import StoreCorruptError, StoreError, StoreIdentityError
from msr_enhance.store.files import OpenFile
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.writer import StoreWriter


def test_a_new_store_is_empty_and_readable(tmp_path, provenance):
    writer = StoreWriter.open(tmp_path / "deep" / "store", provenance)
    assert writer.done("user") == set()
    assert KnowledgeStore.load(writer.path).levels == ()


def test_resuming_continues_where_the_run_ended(folder, provenance, record):
    writer = StoreWriter.open(folder, provenance)
    assert writer.done("user") == {7, -3, 2**63 - 1, 0, 1}
    assert writer.done("scenario") == {"Toys", "Schön 😀"}
    writer.append("user", [record(5)])
    store = KnowledgeStore.load(folder)
    assert store.ids("user") == [7, -3, 2**63 - 1, 0, 1, 5]
    assert (store.vectors("user", [5]) == record(5).vector).all()


def test_the_same_rows_make_the_same_files(tmp_path, provenance, record):
    def shards(name, resume):
        writer = StoreWriter.open(tmp_path / name, provenance)
        for start in range(0, 6, 2):
            if resume:
                writer.close()
                writer = StoreWriter.open(tmp_path / name, provenance)
            writer.append("user", [record(f"u{start}"), record(f"u{start + 1}")])
        return {path.name: path.read_bytes() for path in writer.path.glob("*.safetensors")}

    assert shards("at once", False) == shards("resumed", True)


def test_facts_may_differ_and_the_newest_are_kept(folder, provenance, record):
    newer = provenance.model_copy(update={"facts": {"made": "tomorrow"}})
    StoreWriter.open(folder, newer).append("user", [record(5)])
    assert KnowledgeStore.load(folder).provenance == newer


def test_another_identity_is_refused_field_by_field(folder, provenance):
    other = Provenance(
        identity={"model": {"id": "large", "revision": "abc"}, "state": "last"},
        window={"protocol": "window", "cutoffs": {"Toys": 11}},
    )
    with pytest.raises(StoreIdentityError) as caught:
        StoreWriter.open(folder, other, dtype="float16")
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[1:-1] == [
        "identity.history: 35 in the store, (absent) now",
        "identity.model.id: 'tiny' in the store, 'large' now",
        "identity.state: (absent) in the store, 'last' now",
        "window.cutoffs.Toys: 10.5 in the store, 11 now",
        "dtype: 'float32' in the store, 'float16' now",
    ]
    assert f"{folder}-2" in lines[-1]


def test_a_store_without_rows_takes_any_identity(tmp_path, provenance, record):
    StoreWriter.open(tmp_path, provenance)
    other = provenance.model_copy(update={"identity": {"model": "another"}})
    StoreWriter.open(tmp_path, other, "float16").append("user", [record(1)])
    assert KnowledgeStore.load(tmp_path).provenance == other
    assert StoreWriter.open(tmp_path, other, "float16").done("user") == {1}
    with pytest.raises(StoreIdentityError):
        StoreWriter.open(tmp_path, provenance)


def test_an_identity_that_reads_back_the_same_is_the_same(tmp_path, record):
    made = Provenance(identity={"layers": (1, 2), "by": {3: "x"}}, window={})
    StoreWriter.open(tmp_path, made).append("user", [record(1)])
    again = Provenance(identity={"by": {"3": "x"}, "layers": [1, 2]}, window={})
    assert StoreWriter.open(tmp_path, again).done("user") == {1}


def test_a_folder_of_something_else_is_left_alone(tmp_path, provenance):
    (tmp_path / "thesis.tex").write_text("dear")
    for place, what in ((tmp_path, "thesis"), (tmp_path / "thesis.tex", "is a file")):
        with pytest.raises(StoreError, match=what):
            StoreWriter.open(place, provenance)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("rest", [".tmp-0011", ".tmp-ff"])
def test_a_run_that_ended_before_its_first_manifest_does_not_block(tmp_path, provenance, rest):
    (tmp_path / rest).write_text("half")
    assert StoreWriter.open(tmp_path, provenance).done("user") == set()


BAD = {
    "known": (lambda record: [record(8), record(7)], r"already: 7\. .*writer\.done\('user'\)"),
    "twice": (lambda record: [record(8), record(8)], r"already: 8\."),
    "str": (lambda record: [record("8")], r"of type str .* takes int\. Write int\(id\)"),
    "both": (lambda record: [record(8), record("9")], "of type int and str"),
    "bool": (lambda record: [record(True)], r"'True' \(bool\) cannot be an id"),
    "float": (lambda record: [record(8.0)], r"'8.0' \(float\) cannot be an id"),
    "none": (lambda record: [record(None)], "NoneType"),
    "large": (lambda record: [record(2**63)], "64 bits"),
    "nan": (lambda record: [record(8, vector=np.array([1, np.nan, 0]))], "user 8 is not finite"),
    "inf": (lambda record: [record(8, vector=np.array([1, np.inf, 0]))], "not finite"),
    "overflow": (lambda record: [record(8, vector=np.array([1, 1e300, 0]))], "not finite as float32"),
    "narrow": (lambda record: [record(8), record(9, dim=2)], r"user 9 has shape \(2,\).*\[3\]"),
    "narrow empty": (lambda record: [record(8, "empty", dim=2)], r"shape \(2,\)"),
    "matrix": (lambda record: [record(8, vector=np.zeros((1, 3)))], r"shape \(1, 3\)"),
    "status": (lambda record: [record(8, "done")], "'done'.*'ok', 'empty', 'failed'"),
    "tokens": (lambda record: [record(8, answer_tokens=-1)], "token counts"),
    "surrogate": (lambda record: [record(8, text="\ud800")], "not Unicode"),
    "facts": (lambda record: [record(8, facts={"a": {1}})], "not JSON"),
    "facts nan": (lambda record: [record(8, facts={"a": float("nan")})], "not JSON"),
    "facts keys": (lambda record: [record(8, facts={"a": {9: 1, 10: 2}})], "mappings by text"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_refused_and_nothing_is_added(folder, provenance, record, case):
    rows, says = BAD[case]
    before = KnowledgeStore.load(folder).fingerprint
    writer = StoreWriter.open(folder, provenance)
    with pytest.raises(StoreError, match=says):
        writer.append("user", rows(record))
    assert KnowledgeStore.load(folder).fingerprint == before
    writer.append("user", [record(8)])
    assert KnowledgeStore.load(folder).ids("user")[-1] == 8


@pytest.mark.parametrize("name", ["x" * 1025, "a\ud800"])
def test_bad_string_ids(tmp_path, provenance, record, name):
    with pytest.raises(StoreError, match="cannot be an id"):
        StoreWriter.open(tmp_path, provenance).append("user", [record("fine"), record(1, id=name)])


def test_an_unknown_level_lists_the_levels(folder, provenance, record):
    with pytest.raises(StoreError, match=r"'item'.*'user', 'scenario'"):
        StoreWriter.open(folder, provenance).append("item", [record(9)])


def test_numpy_ids_are_plain_ids(tmp_path, provenance, record):
    writer = StoreWriter.open(tmp_path, provenance)
    writer.append("user", [record(np.int32(4))])
    writer.append("scenario", [record(np.str_("Toys"))])
    store = KnowledgeStore.load(tmp_path)
    assert [type(store.ids(level)[0]) for level in ("user", "scenario")] == [int, str]


def test_rows_that_are_not_ok_hold_zeros(tmp_path, provenance, record):
    writer = StoreWriter.open(tmp_path, provenance)
    writer.append("user", [record(1, "failed", vector=np.array([np.nan, 1, 2]))])
    assert not KnowledgeStore.load(tmp_path).vectors("user", [1]).any()


def test_half_precision(tmp_path, provenance, record):
    writer = StoreWriter.open(tmp_path, provenance, dtype="float16")
    writer.append("user", [record(1)])
    seen = KnowledgeStore.load(tmp_path).vectors("user", [1])
    assert seen.dtype == np.float32
    assert (seen == record(1).vector.astype(np.float16)).all()
    with pytest.raises(StoreError, match="not finite as float16"):
        writer.append("user", [record(2, vector=np.array([0, 0, 7e4]))])


def test_no_rows_are_no_commit(folder, provenance):
    before = KnowledgeStore.load(folder).version
    StoreWriter.open(folder, provenance).append("user", [])
    assert KnowledgeStore.load(folder).version == before


def test_two_manifests_are_kept(folder):
    assert sorted(path.name for path in folder.glob("manifest*")) == ["manifest-3.json", "manifest-4.json"]


@pytest.mark.parametrize("kind", ["vec", "txt"])
def test_a_damaged_store_is_not_resumed(folder, provenance, kind):
    path = next(folder.glob(f"{kind}-*"))
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data if kind == "vec" else data[:-1])  # texts are not read through, only measured
    with pytest.raises(StoreCorruptError, match=r"SHA-256|has [0-9,]+ bytes"):
        StoreWriter.open(folder, provenance)


def test_resuming_holds_no_vectors_and_reads_no_texts(tmp_path, provenance, record, monkeypatch):
    """A store of 25 million users does not fit in memory; digests are taken piece by piece."""
    with StoreWriter.open(tmp_path, provenance) as writer:
        writer.append("user", [record(number, dim=1000) for number in range(50)])
    held, taken, real = [], [], OpenFile.read

    def noted(opened, start, end):
        (taken if noted.digest else held).append((opened.path.name[:3], end - start))
        return real(opened, start, end)

    def digest(opened):
        noted.digest = True
        found = whole(opened)
        noted.digest = False
        return found

    noted.digest, whole = False, OpenFile.digest
    monkeypatch.setattr(OpenFile, "read", noted)
    monkeypatch.setattr(OpenFile, "digest", digest)
    monkeypatch.setattr("msr_enhance.store.files._PIECE", 4096)
    assert StoreWriter.open(tmp_path, provenance).done("user") == set(range(50))
    assert {kind for kind, _ in held + taken} == {"vec"}
    assert sum(size for _, size in held) < 50 * 100
    assert max(size for _, size in taken) == 4096
    assert sum(size for _, size in taken) > 50 * 4000
