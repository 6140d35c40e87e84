"""What every backbone must keep, on the same batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from msr_enhance.backbones.aitm import AITM
from msr_enhance.backbones.mmoe import MMoE
from msr_enhance.backbones.omoe import OMoE
from msr_enhance.backbones.ple import PLE
from msr_enhance.backbones.shared_bottom import SharedBottom
from msr_enhance.backbones.star import STAR
from msr_enhance.train.arms import BACKBONES as BY_NAME
from msr_enhance.wrap.enhance import enhance

SIZES, SCENARIOS = [7, 5, 3], 3
BACKBONES = [SharedBottom, OMoE, MMoE, PLE, AITM, STAR]
# What learns only from the rows of scenario 1, by the start of its name; everything else learns without them.
OWN = {
    SharedBottom: ["towers.1."],
    OMoE: ["towers.1."],
    MMoE: ["towers.1.", "gates.1."],
    PLE: ["towers.1.", "last.specific.1.", "last.gates.1.", "inner.0.gates.1."],
    AITM: ["logits.1."],
}
pytestmark = pytest.mark.parametrize("backbone", BACKBONES)


def make_batch(scenario: list[int], seed: int = 0, extra: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = len(scenario)
    batch = {
        "fields": torch.stack([torch.randint(size, (n,), generator=generator) for size in SIZES], dim=1),
        "scenario": torch.tensor(scenario, dtype=torch.long),
    }
    return batch | ({"extra": torch.randn(n, extra, generator=generator)} if extra else {})


def build(backbone: type[nn.Module], seed: int = 0, **arguments: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return backbone(SIZES, SCENARIOS, **arguments)


def take(batch: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in batch.items()}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("scenario", [[0, 2, 1, 0, 2, 2], [2, 0, 0], [1], []])
def test_one_finite_logit_a_row(backbone: type[nn.Module], scenario: list[int], train: bool) -> None:
    model = build(backbone).train(train)
    logits = model(make_batch(scenario))
    assert logits.shape == (len(scenario),)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_row_does_not_depend_on_its_batch_in_evaluation(backbone: type[nn.Module]) -> None:
    model = build(backbone, extra_width=4)
    batch = make_batch([0, 2, 1, 0, 2, 2, 1, 0] * 8, extra=4)
    for _ in range(3):
        model(batch)
    model.eval()
    whole = model(batch)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1)).tolist()
    alone = torch.cat([model(take(batch, [row])) for row in range(64)])
    torch.testing.assert_close(alone, whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(model(take(batch, order)), whole[order], rtol=1e-6, atol=1e-6)
    assert len(whole.unique()) > 30


def test_evaluation_repeats_and_training_drops(backbone: type[nn.Module]) -> None:
    model = build(backbone, dropout=0.5)
    batch = make_batch([0, 1, 2] * 10)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


def test_every_parameter_learns_when_all_scenarios_are_there(backbone: type[nn.Module]) -> None:
    model = build(backbone, dropout=0.0)
    model(make_batch([0, 1, 2] * 20)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


@pytest.mark.parametrize("n", [1, 2])
def test_few_scenarios_leave_no_parameter_over(backbone: type[nn.Module], n: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = backbone(SIZES, n, dropout=0.0)
    model(make_batch([*range(n)] * 20)).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_a_scenario_learns_only_from_its_own_rows(backbone: type[nn.Module]) -> None:
    model = build(backbone, dropout=0.0)
    batch = make_batch([0, 1, 2] * 20)
    batch["scenario"][batch["scenario"] == 1] = 0
    model(batch).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    if backbone is STAR:
        own = [gradient for name, gradient in gradients.items() if name.endswith("_p")]
        assert len(own) == 8
        assert not any(gradient[1].any() for gradient in own)
        assert all(gradient[0].any() and gradient[2].any() for gradient in own)
        return
    still = {name for name, gradient in gradients.items() if not gradient.any()}
    assert still == {name for name in gradients if name.startswith(tuple(OWN[backbone]))}
    assert len(still) >= 2


def test_it_learns_a_rule_that_differs_by_scenario(backbone: type[nn.Module]) -> None:
    model = build(backbone, dropout=0.0)
    batch = make_batch([0, 1, 2] * 100)
    labels = ((batch["fields"][:, 0] + batch["scenario"]) % 2).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(batch), labels).backward()
        optimizer.step()
    right = (model.eval()(batch) > 0) == labels.bool()
    assert right.float().mean() > 0.98


def test_the_tap_is_the_clean_flat_embedding(backbone: type[nn.Module]) -> None:
    model = build(backbone, embedding_dim=6, extra_width=2)
    seen: list[Tensor] = []
    model.embedding.register_forward_hook(lambda module, args, output: seen.append(output))
    batch = make_batch([2, 0, 1, 2], extra=2)
    model(batch)
    model(batch)
    assert [tuple(e.shape) for e in seen] == [(4, 18), (4, 18)]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], model.embedding(batch["fields"]))


def test_it_is_enhanced_at_the_default_places(backbone: type[nn.Module]) -> None:
    """Starts as the plain model, on batches of fields, scenario and user; then both kinds of layers learn."""
    vectors = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).numpy()
    knowledge = {"user": (range(4), vectors), "scenario": (range(3), vectors[:3])}
    plain = build(backbone, dropout=0.0).eval()
    batch = make_batch([0, 1, 2, 2, 0, 1] * 4) | {"user": torch.arange(24) % 4}
    keys = {"user": "user", "scenario": "scenario"}
    model = enhance(plain, knowledge, tap="embedding", keys=keys, example=batch)
    start = model(batch)
    assert torch.equal(start, plain(batch))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(batch).square().sum().backward()
        optimizer.step()
    layers = dict(model.meta.named_parameters())
    assert {name.split(".")[0] for name, p in layers.items() if p.grad.any()} == {"user", "scenario"}
    assert not torch.allclose(model.eval()(batch), plain(batch))


def test_it_has_a_name_on_the_command_line(backbone: type[nn.Module]) -> None:
    (name,) = [name for name, one in BY_NAME.items() if one is backbone]
    assert name.replace("_", "") == backbone.__name__.lower()


def test_a_model_is_of_a_size_with_the_others(backbone: type[nn.Module]) -> None:
    """Eight fields, three scenarios: a comparison of backbones at their defaults is not one of sizes."""
    model = backbone([10] * 8, 3)
    assert 7_000 < sum(p.numel() for p in model.parameters()) - model.embedding.table.weight.numel() < 30_000


def test_what_the_tap_returns_is_what_is_scored(backbone: type[nn.Module]) -> None:
    model = build(backbone).eval()
    batch = make_batch([2, 0, 1, 2])
    other = make_batch([2, 0, 1, 2], seed=5)
    model.embedding.register_forward_hook(
        lambda module, args, output: model.embedding.forward(other["fields"])
    )
    hooked = model(batch)
    model.embedding._forward_hooks.clear()
    assert torch.equal(hooked, model(other))
    assert not torch.equal(hooked, model(batch))


def test_extra_input_changes_the_logit_and_gets_a_gradient(backbone: type[nn.Module]) -> None:
    model = build(backbone, extra_width=4).eval()
    batch = make_batch([0, 1, 2] * 3, extra=4)
    batch["extra"].requires_grad_()
    model(batch).sum().backward()
    assert batch["extra"].grad.any(dim=1).all()


@pytest.mark.parametrize(
    ("extra", "seen"),
    [(None, "missing"), (torch.ones(3, 5), r"of shape \[3, 5\]"), (torch.ones(3), r"\[3\]")],
)
def test_a_wrong_extra_input_is_refused(backbone: type[nn.Module], extra: Tensor | None, seen: str) -> None:
    batch = make_batch([0, 1, 2]) | ({} if extra is None else {"extra": extra})
    with pytest.raises(ValueError, match=rf"{seen}.*built for \[3, 4\]"):
        build(backbone, extra_width=4)(batch)


def test_an_embedding_of_ones_own_takes_the_place(backbone: type[nn.Module]) -> None:
    table = nn.Embedding(7, 4)
    model = build(backbone, embedding=table, embedding_width=12)
    assert model.embedding is table
    assert model(make_batch([0, 1, 2, 2])).shape == (4,)
    with pytest.raises(ValueError, match="write embedding_width="):
        build(backbone, embedding=table)


@pytest.mark.parametrize("value", [-1, 3])
def test_a_scenario_that_is_not_there_is_refused(backbone: type[nn.Module], value: int) -> None:
    with pytest.raises(ValueError, match=rf"scenario\[2\] is {value}; allowed 0 to 2"):
        build(backbone)(make_batch([0, 1, value]))


def test_fields_and_scenarios_of_different_length_are_refused(backbone: type[nn.Module]) -> None:
    batch = make_batch([0, 1, 2]) | {"scenario": torch.tensor([0])}
    with pytest.raises(ValueError, match="fields has 3 rows and scenario 1"):
        build(backbone)(batch)


def test_a_state_dict_carries_everything(backbone: type[nn.Module]) -> None:
    batch = make_batch([0, 1, 2] * 4)
    model, copy = build(backbone, seed=0), build(backbone, seed=1)
    model(batch)
    copy.load_state_dict(model.state_dict())
    assert torch.equal(copy.eval()(batch), model.eval()(batch))
