"""The training loop on small modules: what it keeps, what it leaves alone, and when it stops."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from msr_enhance.errors import TrainingError
from msr_enhance.train.loop import Rows, Settings, evaluate, fit, logits
from msr_enhance.train.metrics import mean_auc

NAMES = ("a", "b")


def rows(count=400, seed=0, flip=0.0):
    """Rows whose label follows the sign of the first of four inputs, some turned round."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 4)).astype(np.float32)
    label = (x[:, 0] + 0.5 * draw.normal(size=count) > 0).astype(np.float32)
    label = np.where(draw.random(count) < flip, 1 - label, label).astype(np.float32)
    return Rows({"x": torch.from_numpy(x)}, torch.from_numpy(label), np.arange(count) % 2, NAMES)


class Line(nn.Module):
    """A linear model with dropout, and a buffer that counts training calls."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.dropout, self.line = nn.Dropout(dropout), nn.Linear(4, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, batch):
        if self.training:
            self.calls += 1
        return self.line(self.dropout(batch["x"])).squeeze(1)


def line(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Line()


FEW = Settings(epochs=4, batch_size=64)


def test_it_learns_what_is_there():
    model, test = line(), rows(seed=2)
    before = mean_auc(evaluate(model, test))
    done = fit(model, rows(), rows(seed=1), lr=0.05, seed=0, settings=FEW)
    assert mean_auc(evaluate(model, test)) > max(0.9, before)
    assert done.seconds > 0


def test_the_model_is_left_with_its_best_epoch():
    """A rate far too high makes validation jump about; the weights must fit the best figure."""
    train, validation = rows(60, flip=0.3), rows(200, seed=1)
    bests = set()
    for seed in range(6):
        model = line(seed)
        done = fit(
            model, train, validation, lr=3.0, seed=seed, settings=Settings(epochs=8, patience=8, batch_size=8)
        )
        assert done.validation_auc == max(done.history) == done.history[done.epoch]
        assert done.history.index(max(done.history)) == done.epoch, "the first of equally good epochs"
        assert mean_auc(evaluate(model, validation)) == done.validation_auc
        bests.add(done.epoch)
    assert len(bests) > 1, "the test must see different best epochs"


def test_no_harm_is_done_where_training_only_worsens():
    """Epoch 0 is a candidate: a perfect start stays, bit for bit, buffers as well."""
    model = line()
    with torch.no_grad():
        model.line.weight.copy_(torch.tensor([[1.0, 0, 0, 0]]))
        model.line.bias.zero_()
    start = copy.deepcopy(model.state_dict())
    validation = rows(200, seed=1)
    validation = Rows(
        validation.inputs, (validation.inputs["x"][:, 0] > 0).float(), validation.scenario, NAMES
    )
    upside_down = rows(flip=1.0)
    done = fit(model, upside_down, validation, lr=0.5, seed=0, settings=FEW)
    assert (done.epoch, done.validation_auc) == (0, 1.0)
    assert done.history[-1] < 1
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name]), name


def test_it_stops_after_patience():
    train, validation = rows(flip=1.0), rows(seed=1)
    model = line()
    fit(model, rows(), validation, lr=0.05, seed=0, settings=FEW)
    done = fit(
        model, train, validation, lr=0.5, seed=0, settings=Settings(epochs=50, patience=3, batch_size=64)
    )
    assert done.epoch == 0
    assert len(done.history) == 1 + 3


def test_the_seed_decides_everything():
    results = []
    for seed, noise in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(noise)  # what the caller did before must not matter
        model = line()
        done = fit(model, rows(), rows(seed=1), lr=0.02, seed=seed, settings=FEW)
        results.append((done.history, logits(model, rows(seed=2))))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])
    assert not np.array_equal(results[0][1], results[2][1])


@pytest.mark.parametrize("training", [True, False])
def test_generators_and_modes_are_left_alone(training):
    torch.manual_seed(3)
    np.random.seed(3)
    model = line().train(training)
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    fit(model, rows(), rows(seed=1), lr=0.02, seed=0, settings=FEW)
    evaluate(model, rows(seed=2))
    assert torch.equal(torch.random.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert [part.training for part in model.modules()] == [training] * 3


def test_evaluation_does_not_train():
    model = line().train()
    start = copy.deepcopy(model.state_dict())
    first, second = (logits(model, rows(seed=2)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name])
    assert model.training


def test_evaluation_in_pieces_equals_one_pass():
    model = line()
    np.testing.assert_allclose(
        logits(model, rows(), batch_size=7), logits(model, rows(), batch_size=10_000), rtol=1e-5, atol=1e-6
    )


def test_a_mode_is_put_back_after_an_error():
    class Breaks(Line):
        def forward(self, batch):
            raise RuntimeError("no")

    model = Breaks().train()
    with pytest.raises(RuntimeError, match="no"):
        logits(model, rows())
    assert model.training


def test_a_loss_that_is_not_finite_names_the_epoch():
    train = rows()
    train.inputs["x"][7, 2] = float("nan")
    with pytest.raises(TrainingError, match=r"loss is nan in epoch 1; allowed: finite.*lower learning rate"):
        fit(line(), train, rows(seed=1), lr=0.01, seed=0, settings=FEW)


def test_the_mode_is_put_back_after_a_loss_that_is_not_finite():
    train, model = rows(), line().eval()
    train.inputs["x"][7, 2] = float("nan")
    with pytest.raises(TrainingError):
        fit(model, train, rows(seed=1), lr=0.01, seed=0, settings=FEW)
    assert not model.training


def test_a_validation_part_of_one_class_is_an_error():
    part = rows(seed=1)
    part = Rows(part.inputs, torch.ones(len(part)), part.scenario, NAMES)
    with pytest.raises(TrainingError, match=r"AUC is defined in no scenario.*all 200 labels are 1"):
        fit(line(), rows(), part, lr=0.01, seed=0, settings=FEW)


def test_parameter_groups_are_taken():
    """A group with a rate of zero does not move; the others do."""

    def groups(model, lr):
        return [{"params": [model.line.weight], "lr": lr}, {"params": [model.line.bias], "lr": 0.0}]

    model = line()
    before = copy.deepcopy(model.state_dict())
    fit(model, rows(), rows(seed=1), lr=0.05, seed=0, settings=FEW, groups=groups)
    assert torch.equal(model.line.bias, before["line.bias"])
    assert not torch.equal(model.line.weight, before["line.weight"])


def test_mixing_weights_are_watched_where_there_are_some():
    model = line()

    def alphas():
        return {"scenario": float(model.calls), "user": [0.5, 0.6]}

    done = fit(model, rows(), rows(seed=1), lr=0.05, seed=0, settings=FEW, alphas=alphas)
    steps = -(-400 // FEW.batch_size)
    assert done.alphas == {"scenario": [float(steps * epoch) for epoch in range(len(done.history))]}
    assert fit(line(), rows(), rows(seed=1), lr=0.05, seed=0, settings=FEW).alphas == {}


def test_a_model_may_call_its_own_parts_alphas():
    model = line()
    model.alphas = torch.nn.Linear(2, 2)
    done = fit(model, rows(), rows(seed=1), lr=0.05, seed=0, settings=FEW)
    assert done.alphas == {}


def test_every_row_is_served_once_an_epoch():
    served = []

    class Watches(Line):
        def forward(self, batch):
            if self.training:
                served.extend(batch["x"][:, 0].tolist())
            return super().forward(batch)

    train = rows(150)
    fit(Watches(), train, rows(seed=1), lr=0.01, seed=0, settings=Settings(epochs=1, batch_size=64))
    assert sorted(served) == sorted(train.inputs["x"][:, 0].tolist())
    assert served != train.inputs["x"][:, 0].tolist(), "shuffled"
