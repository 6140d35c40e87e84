"""Save and load: the same numbers, the same bytes, and nothing of anybody whose data it was."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from in_house import KEYS, PLACEMENTS, SCENARIOS, USERS, WIDTH, InHouse, batch
from safetensors.torch import load_file
from saving import USER_IDS, files, fresh, knowledge, load, make, make_store, out, vocabulary
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.store.knowledge import KnowledgeStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeStore:
    return make_store(tmp_path_factory.mktemp("store") / "store")


def same_again(
    model: Any,
    source: Any,
    tmp_path: Path,
    backbone: nn.Module,
    call: Callable[[nn.Module], Tensor] = out,
    how: dict[str, Any] | None = None,
    **more: Any,
) -> Any:
    """Load what was saved, compare, save that and compare the bytes."""
    before = call(model.eval())
    model.save_pretrained(tmp_path / "one", **(how or {}))
    loaded = load(tmp_path / "one", source, backbone.eval(), **more)
    assert torch.equal(call(loaded), before)
    loaded.save_pretrained(tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert files(tmp_path / "one").keys() == {"config.json", "model.safetensors"}
    return loaded


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
@pytest.mark.parametrize(
    "config",
    [
        MetaConfig(hidden=5, rank=4),
        MetaConfig(hidden=5, rank=None),
        MetaConfig(hidden=5, rank=3, projection="frozen"),
        MetaConfig.for_fidelity("paper"),
    ],
    ids=["learned", "full", "frozen", "paper"],
)
def test_a_loaded_model_gives_the_same_bits_and_the_same_files(
    placement: Any, config: MetaConfig, store: KnowledgeStore, tmp_path: Path
) -> None:
    model = make(store, placement=placement, meta=config)
    same_again(model, store, tmp_path, fresh(), vocabulary={"user": USER_IDS} if placement["user"] else {})


@pytest.mark.parametrize("learned", [["user"], ["scenario"], ["user", "scenario"]], ids=str)
@pytest.mark.parametrize("policy", ["zero", "learned"])
def test_trained_vectors_and_the_strangers_vector_are_saved(
    learned: list[str], policy: Any, store: KnowledgeStore, tmp_path: Path
) -> None:
    model = make(store, learned=learned, unknown={"user": policy, "scenario": policy})
    strangers = {"user": torch.full((32,), -1)}

    def call(one: nn.Module) -> Tensor:
        with torch.no_grad():
            backbone_user = {"user": torch.arange(32) % USERS}
            keyed = {**batch(32), **backbone_user, "who": strangers["user"]}
            return torch.stack([out(one), one(keyed)])

    same_again(model, store, tmp_path, fresh(), call=call)
    assert any(name.endswith("stranger") for name in model.state_dict()) == (policy == "learned")


def test_vectors_that_come_with_the_batch(tmp_path: Path, store: KnowledgeStore) -> None:
    model = make(store, keys={"scenario": "scenario"}, vectors={"user": "vector"})
    vector = torch.from_numpy(store.vectors("user", [USER_IDS[row] for row in batch(32)["user"]]))

    def call(one: nn.Module) -> Tensor:
        return out(one, vector=vector)

    loaded = same_again(model, store, tmp_path, fresh(), call=call, vocabulary={})
    assert loaded.branches["user"].table.keys == 0
    in_memory = {"scenario": (SCENARIOS, store.vectors("scenario", SCENARIOS))}
    with pytest.warns(UserWarning, match="not what the model was trained with"):
        other = load(tmp_path / "one", in_memory, vocabulary={}, strict=False)
    assert torch.equal(call(other), call(model))


def test_a_model_that_holds_no_vectors_knows_its_store(tmp_path: Path, store: KnowledgeStore) -> None:
    model = make(store, keys={}, vectors={"user": "vector"}, placement={"user": "parallel"}, vocabulary={})
    vector = torch.randn(32, 7, generator=torch.Generator().manual_seed(0))
    same_again(model, store, tmp_path, fresh(), call=lambda m: out(m, vector=vector), vocabulary={})
    with pytest.raises(EnhanceError, match="not what the model was trained with"):
        load(tmp_path / "one", {"user": (USER_IDS, vector.numpy())}, vocabulary={})


class Tasks(InHouse):
    """Two tasks, a logit and a probability, beside each other in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(WIDTH, 1)

    def forward(self, batch: dict[str, Tensor]) -> Any:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return {"ctr": self.deep(e).squeeze(1), "cvr": torch.sigmoid(self.second(e)).squeeze(1)}


def test_several_tasks(store: KnowledgeStore, tmp_path: Path) -> None:
    model = make(store, Tasks(), output=("logit[ctr]", "probability[cvr]"), example=batch())

    def call(one: nn.Module) -> Tensor:
        with torch.no_grad():
            return torch.stack(list(one(batch(32)).values()))

    loaded = same_again(model, store, tmp_path, Tasks().eval(), call=call)
    assert loaded.recipe == model.recipe
    assert loaded.alphas() == model.alphas()


@pytest.mark.parametrize("config", [MetaConfig(hidden=5, rank=4), MetaConfig(hidden=5, rank=None)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("whole", [True, False], ids=["model", "backbone"])
def test_other_types(
    dtype: torch.dtype, whole: bool, config: MetaConfig, store: KnowledgeStore, tmp_path: Path
) -> None:
    model = make(store, meta=config)
    model = model.to(dtype) if whole else model
    if not whole:
        model.backbone.to(dtype)
    loaded = same_again(model, store, tmp_path, fresh().to(dtype))
    assert {name: value.dtype for name, value in loaded.state_dict().items()} == {
        name: value.dtype for name, value in model.state_dict().items()
    }
    twin = copy.deepcopy(model)
    twin.save_pretrained(tmp_path / "twin")
    assert files(tmp_path / "twin") == files(tmp_path / "one")


def test_vectors_in_memory_and_positions_without_names(tmp_path: Path) -> None:
    source = knowledge()
    model = make(source, vocabulary={"scenario": SCENARIOS})
    same_again(model, source, tmp_path, fresh(), vocabulary={})
    assert json.loads((tmp_path / "one/config.json").read_bytes())["knowledge"] == {
        "kind": "memory",
        "identity": {},
        "dims": {"scenario": 7, "user": 7},
        "fingerprint": None,
        "version": None,
        "commit": None,
    }


def test_a_model_after_refresh(store: KnowledgeStore, tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        model = make(store).to(dtype)
        newer = make_store(tmp_path / f"newer-{dtype}", users=30)
        model.refresh(newer, {**vocabulary(30)})
        ids = {"user": vocabulary(30)["user"]}
        same_again(model, newer, tmp_path / str(dtype), fresh().to(dtype), vocabulary=ids)


class Odd(nn.Module):
    """Tied weights, a transposed one, a bool mask, an empty tensor, a number, and state that is a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(9, 6)
        self.out = nn.Linear(6, 9, bias=False)
        self.out.weight = self.items.weight
        self.turned = nn.Parameter(torch.randn(6, 4).t())
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("step", torch.tensor(3))
        self.extra = 1.0

    def get_extra_state(self) -> Any:
        return torch.tensor(self.extra)

    def set_extra_state(self, state: Any) -> None:
        self.extra = float(state)

    def forward(self, user: Tensor, item: Tensor, scenario: Tensor) -> Tensor:
        e = self.items(item)
        return (e @ self.turned.t() @ self.mask.float()) * self.extra + self.out(e).sum(1)


def test_tied_transposed_and_odd_tensors(store: KnowledgeStore, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = Odd()
    backbone.extra = 2.5
    model = make(store, backbone, tap="items")

    def call(one: nn.Module) -> Tensor:
        with torch.no_grad():
            return one(**batch(32))

    torch.manual_seed(8)
    loaded = same_again(model, store, tmp_path, Odd(), call=call)
    assert loaded.backbone.out.weight is loaded.backbone.items.weight
    config = json.loads((tmp_path / "one/config.json").read_bytes())
    assert config["weights"]["aliases"] == {"backbone.out.weight": "backbone.items.weight"}
    held = load_file(tmp_path / "one/model.safetensors")
    assert torch.equal(held["backbone.items.weight"], backbone.items.weight)
    assert "backbone.out.weight" not in held
    loose = Odd()
    loose.out.weight = nn.Parameter(torch.zeros(9, 6))  # not tied: both get the saved one
    assert torch.equal(call(load(tmp_path / "one", store, loose.eval())), call(model))


def test_a_backbone_that_ties_what_was_not_tied_is_refused(store: KnowledgeStore, tmp_path: Path) -> None:
    loose = Odd()
    loose.out.weight = nn.Parameter(torch.zeros(9, 6))
    make(store, loose, tap="items").save_pretrained(tmp_path / "one")
    with pytest.raises(
        EnhanceError, match=r"backbone.out.weight and backbone.items.weight are one tensor here"
    ):
        load(tmp_path / "one", store, Odd())


def test_any_safetensors_reader_reads_the_weights(store: KnowledgeStore, tmp_path: Path) -> None:
    model = make(store)
    model.save_pretrained(tmp_path / "one")
    held, state = load_file(tmp_path / "one/model.safetensors"), model.state_dict()
    assert held.keys() == state.keys()
    assert all(torch.equal(held[name], state[name]) for name in held)


def test_without_the_backbones_weights(store: KnowledgeStore, tmp_path: Path) -> None:
    model = make(store)
    model.save_pretrained(tmp_path / "one", backbone=False)
    assert all(name.startswith("meta.") for name in load_file(tmp_path / "one/model.safetensors"))
    own = fresh()
    before = copy.deepcopy(own.state_dict())
    loaded = load(tmp_path / "one", store, own)
    assert all(torch.equal(value, before[name]) for name, value in loaded.backbone.state_dict().items())
    model.backbone.load_state_dict(before)
    assert torch.equal(out(loaded), out(model))


def test_keys_found_by_functions_are_passed_again(store: KnowledgeStore, tmp_path: Path) -> None:
    model = make(store, keys={"user": lambda batch: batch["user"], "scenario": "scenario"})
    before = out(model)
    model.save_pretrained(tmp_path / "one")
    with pytest.raises(EnhanceError, match=r"keys of user .* pass it again: keys=\{'user': FUNCTION\}"):
        load(tmp_path / "one", store)
    with pytest.raises(EnhanceError, match="level of keys 'item' is not known"):
        load(tmp_path / "one", store, keys={"item": "item"})
    loaded = load(tmp_path / "one", store, keys={"user": lambda batch: batch["user"]})
    assert torch.equal(out(loaded), before)
    loaded.save_pretrained(tmp_path / "two")
    assert files(tmp_path / "one") == files(tmp_path / "two")
    named = load(tmp_path / "one", store, keys={"user": "user"})
    assert named.recipe.keys == KEYS


def test_no_user_id_and_no_path_leaves(store: KnowledgeStore, tmp_path: Path) -> None:
    for number, learned in enumerate(([], ["user"])):
        folder = tmp_path / str(number)
        make(store, learned=learned).save_pretrained(folder)
        data = b"".join(files(folder).values())
        assert b"user-0" not in data
        assert b"anna" not in data
        assert b"shop" in data, "scenario names are few and needed"


def test_training_goes_on(store: KnowledgeStore, tmp_path: Path) -> None:
    """Modes are the backbone's, every weight still learns, and the original is not touched."""
    model = make(store)
    before = out(model)
    model.save_pretrained(tmp_path / "one")
    loaded = load(tmp_path / "one", store, fresh().train())
    assert loaded.training
    assert all(part.training for part in loaded.modules())
    assert not any(part.training for part in load(tmp_path / "one", store, fresh()).modules())
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(batch(32)).square().mean().backward()
    assert all(weight.grad is not None for weight in loaded.meta.parameters())
    optimizer.step()
    assert not torch.equal(out(loaded.eval()), before)
    assert torch.equal(out(model), before)
