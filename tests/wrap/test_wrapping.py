"""What wrapping promises: the backbone, other wrappers, other threads and the caller are left alone."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from in_house import (
    KEYS,
    InHouse,
    batch,
    shake,
    wrap,
)
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError


def test_the_backbone_is_not_changed() -> None:
    torch.manual_seed(0)
    backbone = InHouse().eval()
    keys, plain = list(backbone.state_dict()), backbone(batch())
    model = shake(wrap(backbone, example=batch()))
    assert list(backbone.state_dict()) == keys
    assert [name for name in model.state_dict() if name.startswith("backbone.")] == [
        f"backbone.{key}" for key in keys
    ]
    assert not torch.allclose(model(batch()), plain)
    assert torch.equal(backbone(batch()), plain)
    with model.disabled():
        assert torch.equal(model(batch()), plain)
    assert model.unwrap() is backbone
    assert all(not module._forward_hooks for module in backbone.modules())


def test_an_example_leaves_modes_and_statistics_alone() -> None:
    backbone = InHouse()
    backbone.deep[3].eval()
    before = copy.deepcopy(backbone.state_dict())
    wrap(backbone, example=batch(), width=None)
    assert backbone.training
    assert not backbone.deep[3].training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_random_numbers_of_the_caller_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    backbone = nn.Module()
    del backbone
    state = torch.get_rng_state()
    wrap(InHouseNoInit.make())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(1), expected)


class InHouseNoInit:
    """A backbone built without touching the global generator."""

    @staticmethod
    def make() -> InHouse:
        with torch.random.fork_rng(devices=[]):
            return InHouse()


def test_deepcopies_are_independent() -> None:
    model = shake(wrap(InHouse().eval()))
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin(batch()), model(batch()))
    with torch.no_grad():
        for weight in twin.meta.parameters():
            weight.zero_()
    assert not torch.allclose(twin(batch()), model(batch()))


def test_a_state_dict_round_trip() -> None:
    model, other = shake(wrap(InHouse().eval())), wrap(InHouse(), seed=9).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(batch()), model(batch()))


def test_two_wrappers_of_one_backbone_do_not_disturb_each_other() -> None:
    backbone = InHouse().eval()
    one, two = shake(wrap(backbone)), wrap(backbone).eval()
    plain = backbone(batch())
    assert torch.equal(two(batch()), plain)
    assert not torch.allclose(one(batch()), plain)


def test_threads_do_not_disturb_each_other() -> None:
    model = shake(wrap(InHouse().eval()))
    data = [batch(16, seed) for seed in range(8)]
    expected = [model(one) for one in data]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            if not torch.equal(model(data[number]), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class InPlace(InHouse):
    """Changes the embedding in place right after the tap."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.concat(self.users(batch["user"]), self.items(batch["item"]))
        return self.deep(e.relu_()).squeeze(1)


def test_an_in_place_backbone_does_not_disturb_the_parallel_branch() -> None:
    torch.manual_seed(0)
    model = shake(wrap(InPlace().eval(), placement={"scenario": "parallel"}))
    torch.manual_seed(0)
    data = batch()
    e = torch.cat([model.backbone.users(data["user"]), model.backbone.items(data["item"])], 1)
    plain = model.backbone.deep(e.relu()).squeeze(1)
    branch = model.meta["scenario"]
    torch.testing.assert_close(model(data), branch(e, data["scenario"], plain[:, None]).squeeze(1))


def test_enhanced_models_nest() -> None:
    torch.manual_seed(0)
    inner = shake(wrap(InHouse().eval(), placement={"user": "bottom"}))
    plain = inner(batch())
    outer = wrap(inner, tap="backbone.concat", placement={"scenario": "parallel"}).eval()
    assert torch.equal(outer(batch()), plain)
    shake(outer)
    assert not torch.allclose(outer(batch()), plain)


def test_unwrapping_one_leaves_another_wrapper_working() -> None:
    backbone = InHouse().eval()
    one, two = wrap(backbone), shake(wrap(backbone))
    expected = two(batch())
    one.unwrap()
    assert torch.equal(two(batch()), expected)


def test_a_failed_enhance_leaves_no_hook() -> None:
    backbone = InHouse()
    with pytest.raises(EnhanceError):
        wrap(backbone, keys=KEYS | {"user": "usr"}, example=batch())
    assert all(not module._forward_hooks for module in backbone.modules())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("when", ["before", "after"])
def test_other_precisions(dtype: torch.dtype, when: str) -> None:
    backbone = InHouse().eval()
    if when == "before":
        backbone.to(dtype)
    model = wrap(backbone, example=batch()).eval()
    if when == "after":
        model.to(dtype)
    with model.disabled():
        plain = model(batch())
    assert plain.dtype == dtype
    assert torch.equal(model(batch()), plain)
    assert shake(model)(batch()).dtype == dtype


def test_a_checkpoint_reads_vectors_centred_as_in_training() -> None:
    torch.manual_seed(0)
    backbone = InHouse().eval()
    trained = shake(wrap(backbone, training_ids={"user": list(range(5))}))
    served = wrap(backbone).eval()
    served.load_state_dict(trained.state_dict())
    torch.testing.assert_close(served(batch()), trained(batch()))


def test_disabled_is_of_its_own_thread() -> None:
    model = shake(wrap(InHouse().eval()))
    expected, found = model(batch()), []
    with model.disabled():
        thread = threading.Thread(target=lambda: found.append(model(batch())))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)
