"""The promises of `enhance()`, each over the whole zoo of odd modules."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import BOTTOM, CASES, NAMED, PARALLEL, hooks, shaken
from zoo_case import DIM, USER_NAMES, Case, moved, raw, tensors, vectors

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.keys import find_key

every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def ready(case: Case) -> nn.Module:
    """The module in eval mode, run once: some make their layers then."""
    backbone = case.backbone().eval()
    run(backbone, case)
    return backbone


def run(model: nn.Module, case: Case, rows: int = 12, seed: int = 0) -> Any:
    args, kwargs = case.batch(rows, seed)
    return model(*args, **kwargs)


def same(left: Any, right: Any) -> bool:
    assert type(left) is type(right)
    return all(torch.equal(one, two) for one, two in zip(tensors(left), tensors(right), strict=True))


def close(left: Any, right: Any) -> None:
    for one, two in zip(tensors(left), tensors(right), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@every
@pytest.mark.parametrize("placement", [None, PARALLEL, BOTTOM], ids=["default", "parallel", "bottom"])
def test_it_starts_as_the_plain_module_and_then_differs(case: Case, placement: Any) -> None:
    backbone = ready(case)
    plain = run(backbone, case)
    model = case.enhanced(backbone, placement=placement).eval()
    assert same(run(model, case), plain)
    assert not same(run(shaken(model), case), plain)
    with model.disabled():
        assert same(run(model, case), plain)
    assert same(run(backbone, case), plain)


@every
def test_wrapping_and_unwrapping_leave_no_trace(case: Case) -> None:
    backbone = ready(case)
    plain, found, keys = run(backbone, case), hooks(backbone), list(backbone.state_dict())
    held = copy.deepcopy(backbone.state_dict())
    random = torch.get_rng_state()
    model = case.enhanced(backbone)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, held[name]) for name, value in backbone.state_dict().items())
    assert list(backbone.state_dict()) == keys
    assert [key for key in model.state_dict() if not key.startswith("meta.")] == [
        f"backbone.{k}" for k in keys
    ]
    shaken(model)
    run(model, case)
    assert model.unwrap() is backbone
    assert hooks(backbone) == found
    assert list(backbone.state_dict()) == keys
    assert same(run(backbone, case), plain)


@every
def test_copies_and_loaded_states_give_the_same(case: Case) -> None:
    model = shaken(case.enhanced(ready(case)).eval())
    expected = run(model, case)
    twin = copy.deepcopy(model)
    assert same(run(twin, case), expected)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    assert same(run(model, case), expected)
    other = case.enhanced(ready(case), seed=9).eval()
    other.load_state_dict(model.state_dict())
    assert same(run(other, case), expected)


@every
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_other_precisions(case: Case, dtype: torch.dtype) -> None:
    if dtype is not torch.float64 and not case.half:
        pytest.skip("its own operations do not exist, or mix types, in half precision")
    model = case.enhanced(ready(case)).eval()
    model.to(dtype)
    args, kwargs = moved(case.batch(), lambda one: one if _ids(one) else one.to(dtype))
    with model.disabled():
        plain = model(*args, **kwargs)
    start = model(*args, **kwargs)
    assert same(start, plain)
    result = shaken(model)(*args, **kwargs)
    assert [one.dtype for one in tensors(result)] == [one.dtype for one in tensors(plain)]
    assert all(bool(torch.isfinite(one).all()) for one in tensors(result))


def _ids(value: Tensor) -> bool:
    """Whether a tensor must keep its type: integers, and floats that ids are read out of."""
    return not value.is_floating_point() or (value.dim() == 2 and value.shape[1] == 5)


@every
def test_modes_are_kept_and_follow(case: Case) -> None:
    backbone = ready(case).train()
    last = list(backbone.modules())[-1].eval()
    model = case.enhanced(backbone)
    assert backbone.training
    assert not last.training
    model.eval()
    assert not any(part.training for part in model.modules())
    model.train()
    assert all(part.training for part in model.modules())


@every
@pytest.mark.parametrize("placement", [PARALLEL, BOTTOM], ids=["parallel", "bottom"])
def test_gradients_reach_everything_they_reached_and_all_that_is_new(case: Case, placement: Any) -> None:
    backbone = ready(case)
    model = shaken(case.enhanced(backbone, placement=placement))
    with model.disabled():
        reached = _reached(backbone, run(model, case))
    backbone.zero_grad()
    found = _reached(model, run(model, case))
    assert {f"backbone.{name}" for name in reached} <= found
    assert {name for name, _ in model.named_parameters() if name.startswith("meta.")} <= found


def _reached(model: nn.Module, result: Any) -> set[str]:
    sum(one.float().square().sum() for one in tensors(result) if one.requires_grad).backward()
    weights = model.named_parameters()
    grads = [(name, weight.grad) for name, weight in weights if weight.grad is not None]
    return {name for name, grad in grads if bool(grad.to_dense().ne(0).any())}


@every
def test_a_row_does_not_depend_on_its_batch(case: Case) -> None:
    model = shaken(case.enhanced(ready(case)).eval())
    whole = tensors(run(model, case, 12))
    for rows in (1, 5):
        part = tensors(_first(model, case, rows))
        for one, all_rows in zip(part, whole, strict=True):
            torch.testing.assert_close(
                one.reshape(all_rows[:rows].shape), all_rows[:rows], rtol=1e-4, atol=1e-5
            )


def _first(model: nn.Module, case: Case, rows: int) -> Any:
    args, kwargs = case.call({name: value[:rows] for name, value in raw(12).items()})
    return model(*args, **kwargs)


@every
def test_a_wrong_tap_and_a_wrong_key_list_what_is_there(case: Case) -> None:
    backbone = ready(case)
    some = next(name for name, _ in backbone.named_modules() if name)
    with pytest.raises(EnhanceError, match=rf"tap 'nonsense' is not known; allowed: .*'{some}'"):
        case.enhanced(backbone, tap="nonsense")
    with pytest.raises(EnhanceError, match="key 'nonsense' is not known; allowed: '"):
        case.enhanced(backbone, keys={"user": "nonsense", "scenario": "nonsense"})
    assert sum(hooks(backbone)) == sum(hooks(ready(case)))


@every
def test_vectors_in_the_batch_equal_the_table(case: Case) -> None:
    """A feature store sends each row's vector; here a function finds it, from the case's own key."""
    resident = case.enhanced(ready(case))
    known = torch.from_numpy(vectors()["user"])

    def send(*args: Any, **kwargs: Any) -> Tensor:
        keys = find_key(case.keys["user"], resident.backbone, args, kwargs)
        rows = [USER_NAMES.index(key) for key in keys] if "user" in case.named else keys.flatten()
        return known[rows]

    sent = case.enhanced(ready(case), keys={"scenario": case.keys["scenario"]}, vectors={"user": send})
    sent.load_state_dict(resident.state_dict())
    results = [run(shaken(model).eval(), case) for model in (resident, sent)]
    close(*results)
    for model, result in zip((resident, sent), results, strict=True):
        sum(one.float().square().sum() for one in tensors(result) if one.requires_grad).backward()
        assert any(weight.grad is not None for weight in model.meta.parameters())
    grads = [
        {name: weight.grad for name, weight in model.meta.named_parameters()} for model in (resident, sent)
    ]
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-3, atol=1e-4)


THREADED = [
    "a dict",
    "a matrix of floats",
    "the network's input",
    "a tuple of embeddings",
    "a dict of tasks",
    "tied weights",
]


@pytest.mark.parametrize("name", THREADED)
def test_eight_threads_do_not_disturb_each_other(name: str) -> None:
    case = NAMED[name]
    model = shaken(case.enhanced(ready(case)).eval())
    expected = [run(model, case, 16, seed) for seed in range(8)]
    with model.disabled():
        plain = run(model, case, 16, 7)
    right = [0] * 8

    def work(number: int) -> None:
        for _ in range(15):
            if number == 7:
                with model.disabled():
                    right[number] += same(run(model, case, 16, 7), plain)
            else:
                right[number] += same(run(model, case, 16, number), expected[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [15] * 8


def test_what_the_wrapper_lacks_falls_through() -> None:
    case = NAMED["methods that users call"]
    backbone = ready(case)
    model = case.enhanced(backbone)
    assert model.scale == 3
    assert model.history is backbone.history
    assert model.tables == [backbone.users, backbone.items]
    assert model.deep is backbone.deep
    assert float(model.loss(torch.zeros(2), torch.ones(2))) == pytest.approx(0.6931, abs=1e-3)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = model.nonsense
    model.scale = 4  # set on the wrapper; the backbone stays as it is
    assert (model.scale, backbone.scale) == (4, 3)


def test_a_call_counter_of_the_backbone_is_not_moved_by_the_example() -> None:
    case = NAMED["buffers that move"]
    backbone = case.backbone()
    case.enhanced(backbone)
    assert int(backbone.calls) == 0


def test_the_zoo_is_large() -> None:
    assert len({case.make for case in CASES}) >= 20
    assert len(NAMED) == len(CASES)
    assert all(vectors()[level].shape[1] == DIM for level in vectors())
