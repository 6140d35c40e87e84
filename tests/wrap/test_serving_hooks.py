"""The frozen copy runs a backbone as it ran: its own hooks in their order, whatever names lead to the tap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from in_house import KEYS, SCENARIOS, InHouse, batch, knowledge, shake, wrap
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.enhance import enhance

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Dense(nn.Module):
    """An embedding among its arguments; the keys stand in a batch beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 1))

    def forward(self, dense: Tensor, call: dict[str, Tensor]) -> Tensor:
        return self.deep(dense).squeeze(1)


def shifted(amount: float, kwargs: bool = False) -> Callable[..., Any]:
    """A hook that changes the first tensor it sees; the order of two is told by the result."""

    def plain(_: nn.Module, args: tuple[Any, ...], *out: Any) -> Any:
        if out:
            return out[0] * amount + 1
        return (args[0] * amount + 1, *args[1:])

    def with_kwargs(module: nn.Module, args: tuple[Any, ...], given: dict[str, Any], *out: Any) -> Any:
        return plain(module, args, *out) if out else (plain(module, args), given)

    return with_kwargs if kwargs else plain


@pytest.mark.parametrize("kwargs", [False, True])
@pytest.mark.parametrize("tap", ["deep:input", "deep.0:input", "deep.0", ":input[dense]"])
def test_hooks_before_and_after_the_tap_run_where_they_ran(tap: str, kwargs: bool) -> None:
    torch.manual_seed(0)
    backbone = Dense().eval()
    tapped = backbone.get_submodule(tap.partition(":")[0])
    width = 4 if tap == "deep.0" else 6

    def register(amount: float) -> None:
        tapped.register_forward_pre_hook(shifted(amount, kwargs), with_kwargs=kwargs)
        tapped.register_forward_hook(shifted(amount, kwargs), with_kwargs=kwargs)

    register(0.5)
    example = (torch.randn(12, 6), batch())
    model = enhance(
        backbone,
        knowledge(),
        tap=tap,
        keys=KEYS,
        vocabulary={"scenario": SCENARIOS},
        width=width,
        placement={"user": "bottom", "scenario": "bottom"},
        example=example,
    )
    shake(model)
    register(2.0)
    tapped.register_forward_hook(shifted(3.0), prepend=True)
    serving = model.freeze()
    torch.testing.assert_close(serving(*example), model(*example), **CLOSE)
    assert not torch.allclose(model(*example), backbone(*example))
    hooks = [
        (module._forward_hooks, module._forward_pre_hooks)
        for module in serving.modules()
        if module._forward_hooks
    ]
    assert [tuple(map(len, pair)) for pair in hooks] == [(3, 2)], "theirs, and none of ours"


def test_a_hook_that_is_put_on_the_frozen_copy_runs_after_the_tap() -> None:
    model = shake(wrap(InHouse().eval()))
    serving = model.freeze()
    for one in (serving.backbone.concat, model.backbone.concat):
        one.register_forward_hook(shifted(2.0))
    torch.testing.assert_close(serving(batch()), model(batch()), **CLOSE)


@pytest.mark.parametrize("outer_tap", ["backbone.concat", "backbone.deep:input"])
def test_an_enhanced_model_inside_the_backbone_is_served_too(outer_tap: str) -> None:
    inner = shake(wrap(InHouse().eval()))
    model = shake(wrap(inner, tap=outer_tap))
    with torch.no_grad():
        for weight in inner.meta.parameters():
            weight.mul_(1.3)
    serving = model.freeze()
    with model.disabled():
        once = model(batch())
    for _ in range(2):
        torch.testing.assert_close(serving(batch()), model(batch()), **CLOSE)
    assert not torch.allclose(model(batch()), once)


class Renamed(InHouse):
    """Its tapped module has a second name, which is the one that forward uses."""

    def __init__(self) -> None:
        super().__init__()
        self.fn = self.concat

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.fn(self.users(batch["user"]), self.items(batch["item"])).flatten(1)
        return self.deep(e).squeeze(1)


class Part(nn.Module):
    def __init__(self, concat: nn.Module) -> None:
        super().__init__()
        self.inside = nn.ModuleList([concat])

    def forward(self, *parts: Tensor) -> Tensor:
        return self.inside[0](*parts)


class TwoParents(InHouse):
    """Its tapped module belongs to two parents, of which the second one is run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Part(self.concat), Part(self.concat)
        self.concat = nn.Identity()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.second(self.users(batch["user"]), self.items(batch["item"])).flatten(1)
        return self.deep(e).squeeze(1)


@pytest.mark.parametrize(("kind", "tap"), [(Renamed, "concat"), (TwoParents, "first.inside.0")])
def test_the_tapped_module_has_several_names(kind: type[InHouse], tap: str) -> None:
    model = shake(wrap(kind().eval(), tap=tap))
    serving = model.freeze()
    torch.testing.assert_close(serving(batch()), model(batch()), **CLOSE)
    with model.disabled():
        assert not torch.allclose(serving(batch()), model(batch()))


class Listed(InHouse):
    """Its tapped module is reached by no registered name."""

    def __init__(self) -> None:
        super().__init__()
        self.every = [self.concat]

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        e = self.every[0](self.users(batch["user"]), self.items(batch["item"])).flatten(1)
        return self.deep(e).squeeze(1)


def test_a_module_that_is_reached_otherwise_is_named() -> None:
    model = shake(wrap(Listed().eval()))
    model(batch())  # the live model's hook is found anywhere
    with pytest.raises(EnhanceError, match=r"'concat' never fired in the frozen copy: .*in a list"):
        model.freeze()(batch())


class Remembering(InHouse):
    """It keeps what it has computed."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        self.items.last = self.items(batch["item"])
        return super().forward(batch)


def test_a_backbone_that_keeps_a_graph_is_told_where() -> None:
    model = shake(wrap(Remembering().eval()))
    with torch.no_grad():
        model(batch())
        model.freeze()
    model(batch())
    with pytest.raises(EnhanceError, match=r"items\.last is a tensor with a gradient.*last\.detach\(\)"):
        model.freeze()
    model.backbone.items.last = None
    model.freeze()
    model.backbone.lock = __import__("threading").Lock()
    with pytest.raises(EnhanceError, match=r"cannot be copied.*lock"):
        model.freeze()
