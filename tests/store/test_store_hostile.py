"""A corpus of bad stores: each breaks one rule, and every checksum fits that could hide it.

What is refused is refused with an error of ours that names the file and the field, and says what to write;
by a reader as by a writer, with the digests of whole files compared and, where the rule is not about them,
without.
"""

import contextlib
import os
import re
import shutil

import numpy as np
import pytest
from bad_files import CONTENT, FILES, SCALES
from bad_manifests import MANIFEST, MAPS
from forge import newest, rewritten
from spoil import HELP, PROVENANCE, index, row, stone, txt, vec

from msr_enhance.errors import StoreCorruptError, StoreError, StoreVersionError
from msr_enhance.store import seal
from msr_enhance.store.keyed import key_check
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.transform import write_map
from msr_enhance.store.writer import StoreWriter


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Valid stores of a few rows: with files of every kind, and the same as int8."""
    place = tmp_path_factory.mktemp("valid")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seal, "FULL", 4)
        with StoreWriter.open(place / "float", PROVENANCE) as writer:
            writer.append("user", [row(name, 3) for name in (1, 2, 3)])
            writer.drop("user", [2])
            writer.append("user", [row(4, 3)])
            writer.append("scenario", [row("Toys", 2), row("é", 2)])
            writer.drop("scenario", ["é"])
    kinds = {path.name[:4] for path in writer.path.iterdir()}
    assert kinds == {"vec-", "txt-", "del-", "idx-", "mani", "lock"}
    shutil.copytree(place / "float", place / "int8")
    for number in range(3):
        vec(number, as_int8)(place / "int8")

    def scaled(content):
        maps = [
            write_map(place / "int8", level, "int8", np.zeros(0, np.float32), np.ones(width, np.float32))
            for level, width in (("user", 3), ("scenario", 2))
        ]
        content.update(dtype="int8", maps=[made.model_dump(mode="json") for made in maps])
        content["keyed"] = {"scenario": {"id_type": "int", "check": key_check(bytes(32))}}

    rewritten(place / "int8", scaled)
    return place


def as_int8(tensors):
    tensors["vectors"] = tensors["vectors"].astype(np.int8)


def read(folder, verify):
    """Whatever a store says."""
    store = KnowledgeStore.load(folder, verify)
    for level in store.levels:
        ids = store.ids(level)
        store.vectors(level, ids)
        for name in ids:
            store.record(level, name)
    return store


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_the_stores_that_are_spoiled_here_are_good(stores, tmp_path, kind):
    shutil.copytree(stores / kind, tmp_path / "store")
    assert read(tmp_path / "store", verify=True).ids("user") == [1, 3, 4]
    before = newest(tmp_path / "store").read_bytes()
    for number in range(3):
        vec(number, lambda tensors: None)(tmp_path / "store")
        txt(number, lambda tensors: None)(tmp_path / "store")
    stone(0, lambda tensors: None)(tmp_path / "store")
    index(lambda tensors: None)(tmp_path / "store")
    assert newest(tmp_path / "store").read_bytes() == before, "spoiling without a change changes nothing"
    StoreWriter.open(tmp_path / "store", PROVENANCE).close()


ALL = [
    pytest.param(base, edit, says, id=f"{group}-{name}")
    for group, base, table in (
        ("manifest", "float", MANIFEST),
        ("maps", "int8", MAPS),
        ("files", "float", FILES),
        ("content", "float", CONTENT),
        ("scales", "int8", SCALES),
    )
    for name, (edit, says) in table.items()
]


@pytest.mark.parametrize(("base", "edit", "says"), ALL)
def test_a_bad_store_is_refused_by_rule(stores, tmp_path, base, edit, says):
    folder = tmp_path / "store"
    shutil.copytree(stores / base, folder)
    edit(folder)
    for verify in (True, False):
        if not verify and says == "has SHA-256":
            continue  # whose files are read through when somebody says so
        with pytest.raises((StoreCorruptError, StoreVersionError), match=rf"(?s){says}") as told:
            read(folder, verify)
        message = str(told.value)
        assert re.search(r"manifest-\d+\.json|(vec|txt|del|idx|map)-\w+\.safetensors|names shard", message)
        assert HELP.search(message), message
        assert len(message) < 2000
    with contextlib.suppress(StoreError):
        StoreWriter.open(folder, PROVENANCE).close()


def test_the_corpus_is_as_large_as_it_says():
    assert len(ALL) >= 130


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path), None])
def test_a_newest_version_that_cannot_be_read_is_never_skipped(stores, tmp_path, make):
    shutil.copytree(stores / "float", tmp_path / "store")
    path = tmp_path / "store" / "manifest-999.json"
    if make is None:
        newest(tmp_path / "store").replace(path)
    else:
        make(path)
    for opening in (KnowledgeStore.load, lambda folder: StoreWriter.open(folder, PROVENANCE)):
        with pytest.raises(StoreError, match=r"manifest-999\.json"):
            opening(tmp_path / "store")
