"""Smaller stores: what is kept of the vectors is what is said, and everything else stays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from msr_enhance.cli.app import app
from msr_enhance.errors import StoreError, StoreIdentityError
from msr_enhance.store import seal
from msr_enhance.store.adopt import Version
from msr_enhance.store.derive import squeeze
from msr_enhance.store.derive.make import project, to_int8
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import Provenance
from msr_enhance.store.merge import merge
from msr_enhance.store.record import Record
from msr_enhance.store.transform import read_map
from msr_enhance.store.writer import StoreWriter

PROVENANCE = Provenance(identity={"llm": "tiny"}, window={"rows": 3})
ROWS, WIDTH = 300, 24


def true_vectors() -> np.ndarray:
    """Rows near a plane, with three dimensions eighty times as large, as language models have them."""
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(ROWS, 5)) @ draw.normal(size=(5, WIDTH)) + 0.1 * draw.normal(size=(ROWS, WIDTH))
    rows[:, :3] *= 80
    return (rows + 3).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(seal, "FULL", 64)
    path, vectors = tmp_path / "store", true_vectors()
    with StoreWriter.open(path, PROVENANCE) as writer:
        writer.append("scenario", [Record("shop", "ok", "p", "t", {}, 1, 1, vectors[0])])
        for start in range(0, ROWS, 50):
            writer.append(
                "user",
                [
                    Record(name, "empty", "", "", {}, 0, 0, np.zeros(WIDTH, np.float32))
                    if name % 50 == 7
                    else Record(name, "ok", f"prompt {name}", f"text {name}", {}, 1, 1, vectors[name])
                    for name in range(start, start + 50)
                ],
            )
        writer.drop("user", [3, 4])
    return path


def known(store: KnowledgeStore) -> list[int]:
    return [name for name in store.known("user") if isinstance(name, int)]


def test_a_projection_keeps_what_principal_components_keep(store: Path, tmp_path: Path):
    kept = project(Version.of(store), tmp_path / "small", 5)
    plain, small = KnowledgeStore.load(store), KnowledgeStore.load(tmp_path / "small", verify=True)
    ids = known(plain)
    rows = plain.vectors("user", ids).astype(np.float64)
    centred = rows - rows.mean(axis=0)
    values = np.linalg.svd(centred, compute_uv=False) ** 2
    assert kept["user"] == pytest.approx(values[:5].sum() / values.sum(), abs=1e-6)
    offset, matrix = read_map(small._files, small._manifest.maps[0])
    assert np.allclose(matrix @ matrix.T, np.eye(5), atol=1e-6)
    assert np.allclose(small.vectors("user", ids), centred @ matrix.T, atol=1e-2, rtol=1e-4)
    assert np.allclose(offset, rows.mean(axis=0), rtol=1e-5, atol=1e-3)
    assert small.shape("user") == (5,)
    assert (small.vectors("user", [7, 57]) == 0).all()
    assert np.array_equal(small.vectors("scenario", ["shop"]), plain.vectors("scenario", ["shop"]))
    assert sorted(small.ids("user")) == sorted(plain.ids("user"))
    assert small.record("user", 9).text == "text 9"
    assert small.provenance.identity["transforms"][0]["dim"] == 5
    assert small.provenance.facts["kept_energy"] == [{"user": round(kept["user"], 6)}]


def test_int8_keeps_small_dimensions_beside_large_ones(store: Path, tmp_path: Path):
    _, kept = to_int8(Version.of(store), tmp_path / "small")
    plain, small = KnowledgeStore.load(store), KnowledgeStore.load(tmp_path / "small", verify=True)
    ids = known(plain)
    before, after = plain.vectors("user", ids), small.vectors("user", ids)
    largest = np.abs(before).max(axis=0)
    assert (np.abs(before - after) <= largest / 254 * 1.001).all()
    lost = np.square(before.astype(np.float64) - after).sum() / np.square(before, dtype=np.float64).sum()
    assert kept["user"] == pytest.approx(1 - lost, abs=1e-9)
    inner = before[:, 3:], after[:, 3:]
    cosine = (
        (inner[0] * inner[1]).sum(1) / np.linalg.norm(inner[0], axis=1) / np.linalg.norm(inner[1], axis=1)
    )
    assert cosine.min() > 0.999
    assert (small.vectors("user", [7, 57]) == 0).all()
    assert small.dtype == "int8"
    sizes = [sum(path.stat().st_size for path in at.glob("vec-*")) for at in (tmp_path / "small", store)]
    assert sizes[0] < 0.6 * sizes[1]


def test_made_twice_it_is_the_same_byte_for_byte(store: Path, tmp_path: Path):
    for name in ("a", "b"):
        project(Version.of(store), tmp_path / name, 4, dtype="bfloat16")
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b")]
    assert files[0] == files[1]


def test_a_smaller_store_may_be_made_smaller_still(store: Path, tmp_path: Path):
    project(Version.of(store), tmp_path / "a", 8)
    to_int8(Version.of(tmp_path / "a"), tmp_path / "b")
    project(Version.of(tmp_path / "b"), tmp_path / "c", 4)
    found = KnowledgeStore.load(tmp_path / "c", verify=True)
    assert [step["kind"] for step in found.provenance.identity["transforms"]] == [
        "project",
        "int8",
        "project",
    ]
    assert found.shape("user") == (4,)
    assert found.dtype == "float32"
    wide = KnowledgeStore.load(tmp_path / "a").vectors("user", [1, 2, 5]).astype(np.float64)
    offset, matrix = read_map(found._files, found._manifest.maps[-1])
    assert np.allclose(found.vectors("user", [1, 2, 5]), (wide - offset) @ matrix.T, atol=4, rtol=0.05)


def test_many_rows_are_looked_at_by_chance_and_the_seed_is_kept(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(squeeze, "SAMPLE", 100)
    one, two = (project(Version.of(store), tmp_path / str(seed), 5, seed=seed)["user"] for seed in (1, 2))
    assert one != two
    assert min(one, two) > 0.99
    assert KnowledgeStore.load(tmp_path / "2").provenance.identity["transforms"][0]["seed"] == 2


def test_rows_cannot_be_added_to_it_nor_merged(store: Path, tmp_path: Path):
    to_int8(Version.of(store), tmp_path / "small")
    made = KnowledgeStore.load(tmp_path / "small").provenance
    with pytest.raises(StoreIdentityError, match="transforms"):
        StoreWriter.open(tmp_path / "small", PROVENANCE)
    with (
        StoreWriter.open(tmp_path / "small", made) as writer,
        pytest.raises(StoreError, match="takes no rows"),
    ):
        writer.append("user", [Record(9999, "ok", "", "", {}, 1, 1, np.ones(WIDTH, np.float32))])
    with pytest.raises(StoreError, match="made from another store"):
        merge([tmp_path / "small"], tmp_path / "merged")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--dim", "24"], "have 24 numbers"),
        (["--dim", "4", "--level", "scenario"], "too few"),
        (["--dim", "4", "--level", "item"], "allowed: 'user', 'scenario'"),
        (["--dim", "4", "--dtype", "int4"], "allowed: 'float32'"),
    ],
)
def test_what_cannot_be_is_said(store: Path, tmp_path: Path, words: list[str], said: str):
    done = CliRunner().invoke(app, ["store", "project", str(store), "--out", str(tmp_path / "x"), *words])
    assert done.exit_code == 6
    assert said in done.stderr
    assert not (tmp_path / "x").exists()


def test_the_command_says_what_is_kept(store: Path, tmp_path: Path):
    words = ["store", "project", str(store), "--dim", "5", "--out", str(tmp_path / "x")]
    done = CliRunner().invoke(app, [*words, "--json"])
    found = json.loads(done.stdout)
    assert found["dim"] == 5
    assert 0.99 < found["kept_energy"] < 1
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 6
    assert "empty folder" in again.stderr


def test_all_rows_of_a_level_may_be_dropped_from_a_smaller_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Sealing leaves no shard of the level then, and with it go its scales."""
    with StoreWriter.open(tmp_path / "store", PROVENANCE) as writer:
        for level, names in (("scenario", ["shop"]), ("user", [1, 2, 3])):
            rows = [Record(name, "ok", "", "", {}, 1, 1, np.ones(4, np.float32)) for name in names]
            writer.append(level, rows)
    to_int8(Version.of(tmp_path / "store"), tmp_path / "small")
    monkeypatch.setattr(seal, "RUN", 2)
    made = KnowledgeStore.load(tmp_path / "small")
    with StoreWriter.open(tmp_path / "small", made.provenance) as writer:
        writer.drop("user", made.ids("user"))
    left = KnowledgeStore.load(tmp_path / "small", verify=True)
    assert left.levels == ("scenario",)
    assert {each.level for each in left._manifest.maps} == {"scenario"}
    assert np.array_equal(left.vectors("scenario", ["shop"]), made.vectors("scenario", ["shop"]))
