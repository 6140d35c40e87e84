"""Files that are not as they were written: damaged, cut, changed by hand or by somebody who means harm."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_house import batch
from saving import Wider, files, load, make, make_store, out, refused

from msr_enhance.errors import EnhanceError
from msr_enhance.fingerprint import canonical_json
from msr_enhance.meta.config import MetaConfig
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap import pretrained


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeStore:
    return make_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture
def saved(store: KnowledgeStore, tmp_path: Path) -> Path:
    make(store).save_pretrained(tmp_path / "one")
    return tmp_path / "one"


def test_a_folder_without_a_model(tmp_path: Path, store: KnowledgeStore) -> None:
    (tmp_path / "x").write_text("")
    refused(tmp_path, store, r"holds no config.json and so no saved model; it holds x")
    refused(tmp_path / "none", store, "There is no such folder")
    refused(tmp_path, store, "is a folder and has no revision", revision="main")
    (tmp_path / "config.json").write_bytes(b'{"model_type":"bert"}')
    refused(tmp_path, store, "is no config of an enhanced model")


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the config as somebody would who keeps to its spelling and to its digest."""
    content = json.loads((folder / "config.json").read_bytes())
    del content["sha256"]
    change(content)
    content["sha256"] = hashlib.sha256(canonical_json(content)).hexdigest()
    (folder / "config.json").write_bytes(canonical_json(content))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c.update(format_version="1.1"), r"format version '1.1'; this library reads '1.0'"),
        (lambda c: c.update(format_version=[1]), "format version"),
        (lambda c: c.update(more=1), "more: Extra inputs are not permitted"),
        (lambda c: c.pop("weights"), "weights: Field required"),
        (lambda c: c["recipe"].update(width="6"), "recipe.width: Input should be a valid integer"),
        (lambda c: c["recipe"]["meta"].update(more=1), "recipe.meta.more"),
        (lambda c: c["recipe"].update(placement={"item": "bottom"}), r"placement of \['item'\]"),
        (lambda c: c["recipe"].update(placement={}), "placement of"),
        (lambda c: c["recipe"]["keys"].pop("user"), "keys and vectors"),
        (lambda c: c["recipe"].update(learned=["item"]), "learned names levels"),
        (lambda c: c["recipe"].update(tap="[["), "names nothing"),
        (lambda c: c["recipe"].update(output=["score"]), "output"),
        (lambda c: c["recipe"].update(width=0), "width or tasks"),
        (lambda c: c["vocabularies"].pop("user"), "vocabularies of"),
        (lambda c: c["vocabularies"]["scenario"]["names"].reverse(), "names of scenario"),
        (lambda c: c["weights"].update(sha256="0" * 64), "its SHA-256 is"),
        (lambda c: c["weights"].update(bytes=10**15), "has .* bytes, config.json promises"),
        (lambda c: c["weights"]["aliases"].update({"backbone.x": "backbone.y"}), "has no place in it"),
        (lambda c: c["recipe"]["meta"].update(layers=10**6), "fewer tensors than the 1,000,000 layers"),
        (lambda c: c["recipe"]["meta"].update(layers=3), "meta.scenario.layers.2.bias is missing"),
        (lambda c: c["recipe"]["meta"].update(hidden=10**6), r"layers.0.bias is .* allowed: .*1000000\]"),
        (lambda c: c["recipe"].update(width=10**9), r"allowed: .*1000000000"),
        *[
            (lambda c, size=size: c["recipe"]["meta"].update({size: 2**62}), f"recipe.meta.{size}: Input")
            for size in ("layers", "hidden", "rank", "compact")
        ],
        (
            lambda c: (c["recipe"].update(width=2**31 - 1), c["recipe"]["meta"].update(layers=1)),
            "its recipe asks for user layers of a size that none has",
        ),
        (
            lambda c: c["recipe"].update(tasks=2),
            r"meta.scenario.alpha is float32 \[1\], allowed: float32 \[2\]",
        ),
        (lambda c: c["recipe"]["meta"].update(rank=None), r"meta.user.projection is not known"),
        (lambda c: c["knowledge"]["dims"].update(user=8), "user vectors have 7 numbers"),
    ],
)
def test_a_config_that_was_changed(
    change: Callable[[dict[str, Any]], object], match: str, saved: Path, store: KnowledgeStore
) -> None:
    rewritten(saved, change)
    refused(saved, store, match)


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff", b"x" * (1 << 21)], ids=len)
def test_a_config_that_is_none(data: bytes, saved: Path, store: KnowledgeStore) -> None:
    (saved / "config.json").write_bytes(data)
    refused(saved, store, "config.json is no")


def test_another_spelling_of_the_same_config(saved: Path, store: KnowledgeStore) -> None:
    content = json.loads((saved / "config.json").read_bytes())
    (saved / "config.json").write_text(json.dumps(content, indent=1))
    refused(saved, store, "not canonical JSON")


def test_every_damaged_byte_of_the_config_is_seen(saved: Path, store: KnowledgeStore) -> None:
    data = (saved / "config.json").read_bytes()
    for spot in range(0, len(data), 7):
        (saved / "config.json").write_bytes(data[:spot] + bytes([data[spot] ^ 1]) + data[spot + 1 :])
        refused(saved, store, r"config\.json")
    alpha = data.replace(b'"alpha":0.5', b'"alpha":0.7')
    assert alpha != data
    for changed in (alpha, data.replace(b'"sha256"', b'"sha255"', 1)):
        (saved / "config.json").write_bytes(changed)
        refused(saved, store, "its own SHA-256 is .*, it promises")


def test_every_damaged_byte_and_every_cut_is_seen(saved: Path, store: KnowledgeStore) -> None:
    data = (saved / "model.safetensors").read_bytes()
    spots = [*range(0, len(data), max(1, len(data) // 40)), len(data) - 1]
    for spot in spots:
        (saved / "model.safetensors").write_bytes(data[:spot] + bytes([data[spot] ^ 1]) + data[spot + 1 :])
        refused(saved, store, "model.safetensors")
    for spot in spots:
        (saved / "model.safetensors").write_bytes(data[:spot])
        refused(saved, store, "bytes, config.json promises")
    (saved / "model.safetensors").unlink()
    refused(saved, store, "model.safetensors cannot be read")


def forged(folder: Path, header: bytes, body: bytes = b"") -> None:
    """A weights file by somebody who also wrote its digest into the config."""
    data = len(header).to_bytes(8, "little") + header + body
    (folder / "model.safetensors").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    rewritten(folder, lambda c: c["weights"].update(bytes=len(data), sha256=digest))


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (b"[]", "its header is not one"),
        (b"{" * 50_000, "its header is not one"),
        (b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}', "its tensors need 4,398,046"),
        (b'{"a":{"dtype":"F32","shape":[1e3],"data_offsets":[0,4]}}', "its header is not one"),
        (b'{"a":{"dtype":"X","shape":[1],"data_offsets":[0,4]}}', "its header is not one"),
        (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "its header is not one"),
        (b'{"a":{"dtype":"F32"}}', "its header is not one"),
        (b'{"a":7}', "its header is not one"),
    ],
)
def test_a_forged_header(header: bytes, match: str, saved: Path, store: KnowledgeStore) -> None:
    forged(saved, header)
    refused(saved, store, match)


def test_a_header_that_promises_more_than_the_file_has(saved: Path, store: KnowledgeStore) -> None:
    text = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]},
        },
        separators=(",", ":"),
    ).encode()
    forged(saved, text + b" " * (-len(text) % 64))
    refused(saved, store, "its tensors need 4,398,046,511,[0-9]+ bytes and it has")
    (saved / "model.safetensors").write_bytes(b"\xff" * 100)
    rewritten(saved, lambda c: c["weights"].update(bytes=100))
    refused(saved, store, "its header of .* bytes does not fit")


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda table: table.mean.fill_(float("nan")), "statistics of user hold NaN"),
        (lambda table: table.basis.zero_(), "columns of length 0.0"),
    ],
)
def test_statistics_that_cannot_be(
    spoil: Callable[[Any], object],
    match: str,
    store: KnowledgeStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make(store)
    spoil(model.branches["user"].table)
    with pytest.raises(EnhanceError, match=r"statistics of user .*hold NaN, infinity or nothing but zeros"):
        model.save_pretrained(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(pretrained, "check_statistics", lambda *_: None)
    model.save_pretrained(tmp_path / "one")
    refused(tmp_path / "one", store, match)


def test_the_errors_are_read_before_a_large_store_is(saved: Path, store: KnowledgeStore) -> None:
    """A wrong backbone costs no look-up of vectors."""
    before = store.lookups.asked
    refused(saved, store, "backbone.items.weight", Wider(rows=10))
    assert store.lookups.asked == before


def test_a_second_model_on_the_same_backbone_keeps_its_tap(saved: Path, store: KnowledgeStore) -> None:
    first = make(store)
    expected = out(first)
    rewritten(saved, lambda c: c["recipe"]["meta"].update(hidden=6))
    with pytest.raises(EnhanceError, match=re.escape("meta.scenario.layers")):
        load(saved, store, first.backbone)
    assert torch.equal(out(first), expected)


def test_the_saved_configuration_is_the_models(saved: Path, store: KnowledgeStore) -> None:
    loaded = load(saved, store)
    assert loaded.recipe.meta == MetaConfig(hidden=5, rank=4)
    assert loaded.origin.fingerprint == store.fingerprint
    assert files(saved).keys() == {"config.json", "model.safetensors"}
    assert loaded(batch()).shape == (12,)
