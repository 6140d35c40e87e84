"""An enhanced model where models are run: compiled, checkpointed, in other precisions, saved, sparse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from zoo import BOTTOM, CASES, NAMED, PARALLEL, shaken
from zoo_case import Base, Case, raw, tensors

from msr_enhance.errors import EnhanceError

COMPILED = [
    "a dict", "positional arguments", "keyword only", "a dataclass", "a named tuple", "nested dicts",
    "a matrix of floats", "per field", "a dict of embeddings", "a keyed tensor", "the network's input",
    "an argument by its name", "the backbone's own argument", "a probability", "a member of a tuple",
    "a member of a dataclass", "a dict of tasks", "mixed columns", "in place after the tap", "batch norm",
]  # fmt: skip
others = [case.name for case in CASES if case.compiles and case.name not in COMPILED]


def close(left: Any, right: Any, tight: float = 1e-5) -> None:
    for one, two in zip(tensors(left), tensors(right), strict=True):
        torch.testing.assert_close(one, two, rtol=10 * tight, atol=tight)


def compiles(case: Case, backend: str) -> None:
    torch.compiler.reset()
    model = shaken(case.enhanced().eval())
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    (args, kwargs), (more, named) = case.batch(), case.batch(12, 1)
    close(compiled(*args, **kwargs), model(*args, **kwargs))
    with torch._dynamo.config.patch(error_on_recompile=True):
        close(compiled(*more, **named), model(*more, **named))


@pytest.mark.parametrize("name", COMPILED)
def test_it_compiles_without_a_break_and_once(name: str) -> None:
    compiles(NAMED[name], "eager")


@pytest.mark.slow
@pytest.mark.parametrize("name", others[::3])
def test_a_third_of_the_rest_of_the_zoo_compiles_too(name: str) -> None:
    compiles(NAMED[name], "eager")


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # inductor's
def test_it_compiles_with_inductor() -> None:
    compiles(NAMED["a dict"], "inductor")


@pytest.mark.parametrize("placement", [PARALLEL, BOTTOM], ids=["parallel", "bottom"])
def test_a_compiled_step_has_the_gradients_of_an_eager_one(placement: Any) -> None:
    torch.compiler.reset()
    case = NAMED["several probabilities"]
    models = [shaken(case.enhanced(case.backbone(), placement=placement)).eval() for _ in range(2)]
    compiled = torch.compile(models[1], fullgraph=True, backend="aot_eager")
    args, kwargs = case.batch(32)
    for model in (models[0], compiled):
        model(*args, **kwargs).square().sum().backward()
    grads = [{name: weight.grad for name, weight in model.named_parameters()} for model in models]
    assert all(grad is not None for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-4, atol=1e-6)


def test_a_compiled_backbone_of_another_enhanced_model_stays_plain() -> None:
    torch.compiler.reset()
    case = NAMED["a dict"]
    backbone = case.backbone().eval()
    plain = backbone(raw())
    model = shaken(case.enhanced(backbone).eval())
    compiled = torch.compile(backbone, fullgraph=True, backend="eager")
    close(compiled(raw()), plain)
    assert not torch.allclose(model(raw()), plain)


class Inside(Base):
    """The tapped module is called by activation checkpointing."""

    reentrant = False

    def forward(self, data: Any) -> Tensor:
        user, item = self.users(data["user"]), self.items(data["item"])
        made = checkpoint(self.concat, user, item, use_reentrant=self.reentrant)
        return self.deep(made).squeeze(1)


class InsideReentrant(Inside):
    reentrant = True


class After(Base):
    def forward(self, data: Any) -> Tensor:
        return checkpoint(self.deep, self.embed(data), use_reentrant=self.reentrant).squeeze(1)

    reentrant = False


class AfterReentrant(After):
    reentrant = True


# What the reentrant kind says of any call without gradients, that of the plain backbone too.
quiet = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")


@quiet
@pytest.mark.parametrize("kind", [Inside, InsideReentrant])
def test_a_tap_inside_checkpointing_is_an_error_by_name(kind: Any) -> None:
    case = NAMED["a dict"]
    with pytest.raises(EnhanceError, match="Tap 'concat' lies inside activation checkpointing"):
        case.enhanced(kind())
    model = case.enhanced(kind(), example=None, width=6)
    with pytest.raises(EnhanceError, match="Tap 'concat' lies inside activation checkpointing"):
        model(raw())
    with torch.no_grad():  # nothing is run again without gradients
        assert model.eval()(raw()).shape == (12,)


def test_an_outer_tap_inside_checkpointing_of_an_inner_enhanced_model_is_seen() -> None:
    case = NAMED["a dict"]
    inner_model = case.enhanced(Inside(), tap="deep:input", placement={"user": "bottom", "scenario": None})
    with pytest.raises(EnhanceError, match=r"Tap 'backbone\.concat' lies inside"):
        case.enhanced(inner_model, tap="backbone.concat", placement=PARALLEL)


@quiet
@pytest.mark.parametrize("kind", [After, AfterReentrant])
@pytest.mark.parametrize("placement", [PARALLEL, BOTTOM], ids=["parallel", "bottom"])
def test_checkpointing_after_the_tap_has_the_same_gradients(kind: Any, placement: Any) -> None:
    case = NAMED["a dict"]
    _same_gradients(case, kind(), case.backbone(), placement, lambda model: model(raw(32)))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("placement", [PARALLEL, BOTTOM], ids=["parallel", "bottom"])
def test_checkpointing_around_the_enhanced_model_has_the_same_gradients(
    reentrant: bool, placement: Any
) -> None:
    def call(model: nn.Module) -> Tensor:
        # The reentrant kind wants an input that learns.
        one = torch.ones((), requires_grad=True)
        return checkpoint(lambda data, one: model(data) * one, raw(32), one, use_reentrant=reentrant)

    case = NAMED["a dict"]
    _same_gradients(case, case.backbone(), case.backbone(), placement, call)


def _same_gradients(case: Case, odd: nn.Module, plain: nn.Module, placement: Any, call: Any) -> None:
    odd.load_state_dict(plain.state_dict())
    models = [shaken(case.enhanced(backbone.eval(), placement=placement)).eval() for backbone in (odd, plain)]
    results = [call(models[0]), models[1](raw(32))]
    close(*results)
    for result in results:
        result.square().sum().backward()
    for (name, one), two in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert two.grad is not None, name
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-5, atol=1e-7)


def test_inference_mode_gives_the_same() -> None:
    for name in ("a dict", "the network's input", "in place after the tap", "a dict of tasks"):
        case = NAMED[name]
        model = shaken(case.enhanced().eval())
        args, kwargs = case.batch()
        with torch.inference_mode():
            close(model(*args, **kwargs), model(*args, **kwargs), 1e-9)
            inferred = model(*args, **kwargs)
        close(inferred, model(*args, **kwargs))


class ChangesItsInput(Base):
    """Changes the embedding in place after the tapped layer has read it."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = nn.Identity()

    def forward(self, data: Any) -> Tensor:
        e = self.embed(data)
        found = self.tail(e)
        score = self.deep(found).squeeze(1)
        e *= 0
        return score


def test_an_input_changed_in_place_behind_the_tap_is_named_or_kept() -> None:
    case = NAMED["a dict"]
    backbone = ChangesItsInput().eval()
    other = case.enhanced(case.backbone(), example=None, width=6)
    model = shaken(
        case.enhanced(backbone, tap="tail:input", placement=PARALLEL, example=None, width=6).eval()
    )
    del other
    with (
        torch.no_grad(),
        pytest.raises(EnhanceError, match="changed the embedding at tap 'tail:input' in place"),
    ):
        model(raw())
    right = shaken(case.enhanced(backbone, tap="concat", placement=PARALLEL).eval())
    with torch.inference_mode():  # no versions there: the embedding is copied instead
        close(model(raw()), right(raw()))


@pytest.mark.parametrize("placement", [PARALLEL, BOTTOM], ids=["parallel", "bottom"])
def test_autocast_trains(placement: Any) -> None:
    case = NAMED["batch norm"]
    model = shaken(case.enhanced(placement=placement)).train()
    exact = shaken(case.enhanced(placement=placement)).eval()(raw(64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close(model.eval()(raw(64)).float(), exact, 0.1)
        loss = nn.functional.binary_cross_entropy_with_logits(model.train()(raw(64)).float(), torch.ones(64))
    loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert bool(torch.isfinite(weight.grad).all())
        assert weight.grad.dtype == torch.float32


def test_exporting_the_live_model_names_freeze() -> None:
    model = NAMED["a dict"].enhanced().eval()
    with pytest.raises(EnhanceError, match="freeze"):
        torch.export.export(model, (raw(),), strict=False)


def test_weights_are_saved_without_pickle(tmp_path: Path) -> None:
    for name in ("a dict", "batch norm", "buffers that move"):
        case = NAMED[name]
        model = shaken(case.enhanced().eval())
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        other = case.enhanced(seed=8).eval()
        other.load_state_dict(load_file(tmp_path / "model.safetensors"))
        args, kwargs = case.batch()
        assert torch.equal(other(*args, **kwargs), model(*args, **kwargs))


@pytest.mark.parametrize("placement", [PARALLEL, BOTTOM], ids=["parallel", "bottom"])
def test_sparse_embeddings_keep_sparse_gradients_and_train(placement: Any) -> None:
    model = NAMED["sparse embeddings"].enhanced(placement=placement)
    tables = {model.backbone.users.weight, model.backbone.items.weight}
    groups = [
        {**group, "params": [weight for weight in group["params"] if weight not in tables]}
        for group in model.parameter_groups(0.05)
    ]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters())) - 2
    optimizers = [torch.optim.SparseAdam(list(tables), 0.05), torch.optim.Adam(groups)]
    losses = []
    for _ in range(15):
        loss = nn.functional.binary_cross_entropy_with_logits(model(raw(64)), (raw(64)["user"] % 2).float())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        assert all(table.grad.is_sparse for table in tables)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
