"""What is not as it was saved is refused by name, and the backbone that was brought is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_house import SCENARIOS, InHouse
from saving import USER_IDS, Wider, fresh, knowledge, load, make, make_store, out, refused, vocabulary
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.store.knowledge import KnowledgeStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeStore:
    return make_store(tmp_path_factory.mktemp("store") / "store")


@pytest.fixture
def saved(store: KnowledgeStore, tmp_path: Path) -> Path:
    make(store).save_pretrained(tmp_path / "one")
    return tmp_path / "one"


# The knowledge


def test_a_newer_version_of_the_store_is_allowed(saved: Path, store: KnowledgeStore, tmp_path: Path) -> None:
    """With more users and scenarios, about a longer log; those of training read as they did."""
    expected = out(load(saved, store))
    newer = make_store(tmp_path / "newer", users=25, scenarios=5, history=30)
    loaded = load(saved, newer)
    torch.testing.assert_close(out(loaded), expected)
    ids = {"user": vocabulary(25)["user"], "scenario": [*SCENARIOS, "more", "still more"]}
    grown = load(saved, newer, vocabulary=ids)
    torch.testing.assert_close(out(grown), expected)
    assert grown.branches["user"].table.keys == 25
    new = {"scenario": torch.full((32,), 4)}
    assert not torch.allclose(out(grown, **new), expected)


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"llm": {"model": "other", "state": "last"}}, r"llm.model is 'other', allowed: 'tiny'"),
        ({"llm": {"model": "/mnt/x/tiny", "state": "mean"}}, r"llm.state is 'mean', allowed: 'last'"),
        ({"templates": {"user": "xx", "scenario": "cd"}}, r"templates.user is 'xx', allowed: 'ab'"),
        ({"transforms": [{"kind": "project", "dim": 7}]}, r"transforms is \[.*\], allowed: \(absent\)"),
    ],
)
def test_another_store_is_refused_by_field(
    other: dict[str, Any], match: str, saved: Path, store: KnowledgeStore, tmp_path: Path
) -> None:
    source = make_store(tmp_path / "other", **other)
    refused(saved, source, match)
    with pytest.warns(UserWarning, match=match):
        loaded = load(saved, source, strict=False)
    assert torch.equal(out(loaded), out(load(saved, store)))


def test_a_store_for_memory_and_memory_for_a_store(
    saved: Path, store: KnowledgeStore, tmp_path: Path
) -> None:
    held = {"user": (USER_IDS, store.vectors("user", USER_IDS))}
    held["scenario"] = (SCENARIOS, store.vectors("scenario", SCENARIOS))
    refused(saved, held, "it is vectors in memory, which have no identity, allowed: a store")
    with pytest.warns(UserWarning, match="vectors in memory"):
        assert torch.equal(out(load(saved, held, strict=False)), out(load(saved, store)))
    make(held).save_pretrained(tmp_path / "two")
    refused(tmp_path / "two", store, "it is a store, allowed: vectors in memory")


def test_vectors_of_another_width_and_missing_levels(saved: Path, tmp_path: Path) -> None:
    source = knowledge()
    make(source, vocabulary={"scenario": SCENARIOS}).save_pretrained(tmp_path / "two")
    wide = {**source, "user": (source["user"][0], np.ones((20, 9), np.float32))}
    refused(tmp_path / "two", wide, "user vectors have 9 numbers, and the model was trained on 7")
    refused(tmp_path / "two", {"user": source["user"]}, "level 'scenario' is not known", vocabulary={})


def test_a_scenario_that_the_store_lacks(saved: Path, tmp_path: Path) -> None:
    poorer = make_store(tmp_path / "poorer", scenarios=2)
    backbone = fresh()
    with pytest.raises(UnknownIdError, match="shop"):
        load(saved, poorer, backbone)
    assert not backbone.concat._forward_hooks


@pytest.mark.parametrize("source", [None, "store", 3, [1], Path("store")], ids=repr)
def test_what_is_no_knowledge(source: Any, saved: Path) -> None:
    refused(saved, source, r"knowledge is .*; allowed: a KnowledgeStore, or \{level: \(ids, vectors\)\}")


# The vocabulary


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        (None, r"positions in a vocabulary of 20 ids, of which only the digest .*pass vocabulary=\{'user'"),
        (USER_IDS[:-1], "has 19 ids; allowed: the 20 ids"),
        (USER_IDS[::-1], "is another one: its first 20 ids"),
        (["new", *USER_IDS], "is another one"),
        ([*USER_IDS[:-1], "other"], "is another one"),
        ([*USER_IDS, USER_IDS[0]], "is another one"),
        (list(range(20)), "is another one"),
        ([1.5] * 20, "is float; allowed: integers and strings"),
    ],
)
def test_another_vocabulary(ids: Any, match: str, saved: Path, store: KnowledgeStore) -> None:
    refused(saved, store, match, vocabulary={} if ids is None else {"user": ids})


@pytest.mark.parametrize(
    "ids",
    [iter(USER_IDS), None, dict.fromkeys(USER_IDS), "user-000", set(USER_IDS), 3],
    ids=lambda ids: type(ids),
)
def test_ids_in_no_order(ids: Any, saved: Path, store: KnowledgeStore) -> None:
    refused(saved, store, "The vocabulary of user is .*; allowed: a list", vocabulary={"user": ids})
    refused(saved, store, r"vocabulary is list; allowed: \{level: ids\}", vocabulary=[1])


@pytest.mark.parametrize("ids", [tuple(USER_IDS), np.array(USER_IDS)], ids=lambda ids: type(ids))
def test_ids_in_any_order_preserving_form(ids: Any, saved: Path, store: KnowledgeStore) -> None:
    assert torch.equal(out(load(saved, store, vocabulary={"user": ids})), out(load(saved, store)))


@pytest.mark.parametrize("source", [3.5, True, None, ["user"]], ids=repr)
def test_what_finds_no_key(source: Any, saved: Path, store: KnowledgeStore) -> None:
    refused(saved, store, r"keys=\{'user': .*\}; allowed: a name, the number", keys={"user": source})
    refused(saved, store, r"keys is str; allowed: \{level: NAME\}", keys="user")


def test_scenarios_in_another_order(saved: Path, store: KnowledgeStore) -> None:
    ids = {"user": USER_IDS, "scenario": SCENARIOS[::-1]}
    refused(saved, store, "vocabulary of scenario is another one", vocabulary=ids)
    refused(saved, store, "level of vocabulary 'item'", vocabulary={**ids, "item": [1]})


def test_trained_vectors_have_no_newcomers(store: KnowledgeStore, tmp_path: Path) -> None:
    make(store, learned=["user"]).save_pretrained(tmp_path / "one")
    newer = make_store(tmp_path / "newer", users=25)
    refused(tmp_path / "one", newer, "has 25 ids.*and no others", vocabulary={"user": vocabulary(25)["user"]})
    load(tmp_path / "one", newer)


# The backbone


@pytest.mark.parametrize(
    ("backbone", "match"),
    [
        (Wider(rows=10), r"backbone.items.weight is float32 \[10, 3\], allowed: float32 \[9, 3\]"),
        (Wider(more=True), r"backbone.side.weight is not known \(float32 \[2, 2\]\)"),
        (InHouse().to(torch.bfloat16), r"backbone.deep.0.bias is bfloat16 \[8\], allowed: float32 \[8\]"),
        (nn.Sequential(), "tap 'concat' is not known"),
        (InHouse().to("meta"), "on the meta device"),
    ],
)
def test_another_backbone(backbone: nn.Module, match: str, saved: Path, store: KnowledgeStore) -> None:
    if any(weight.is_meta for weight in backbone.parameters()):
        with pytest.raises(EnhanceError, match=match):
            load(saved, store, backbone)
    else:
        refused(saved, store, match, backbone)


def test_a_backbone_that_lacks_a_weight(store: KnowledgeStore, tmp_path: Path) -> None:
    make(store, Wider(more=True)).save_pretrained(tmp_path / "one")
    refused(tmp_path / "one", store, r"backbone.side.weight is missing \(float32 \[2, 2\]\)")


class Stateful(InHouse):
    def __init__(self, extra: Any) -> None:
        super().__init__()
        self.kept = extra
        if isinstance(extra, Tensor):
            self.register_buffer("odd", extra)

    def get_extra_state(self) -> Any:
        return {"a": 1} if self.kept == "extra" else torch.zeros(1)

    def set_extra_state(self, state: Any) -> None: ...


@pytest.mark.parametrize(
    ("extra", "match"),
    [
        ("extra", r"backbone._extra_state is dict, state that is no tensor; allowed: plain tensors"),
        (torch.zeros(1).expand(4), "backbone.odd is an expanded view"),
        (torch.zeros(2, dtype=torch.complex64), "backbone.odd is a tensor of torch.complex64"),
        (torch.eye(2).to_sparse(), "backbone.odd is a tensor of torch.float32, torch.sparse_coo"),
    ],
    ids=["extra", "expanded", "complex", "sparse"],
)
def test_a_state_that_cannot_be_saved(extra: Any, match: str, store: KnowledgeStore, tmp_path: Path) -> None:
    model = make(store, Stateful(extra))
    with pytest.raises(EnhanceError, match=match):
        model.save_pretrained(tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_a_lazy_weight(store: KnowledgeStore, tmp_path: Path) -> None:
    model = make(store)
    model.backbone.lazy = nn.LazyLinear(3)
    with pytest.raises(EnhanceError, match=r"backbone.lazy.weight is a lazy weight .*run one batch first"):
        model.save_pretrained(tmp_path / "one")
