"""A store of several layers trains like one whose layers were set side by side beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_run import quick, setting_of

from msr_enhance.data.split import split_table
from msr_enhance.errors import EnhanceError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.writer import StoreWriter
from msr_enhance.train.arms import build
from msr_enhance.wrap.enhance import enhance


@pytest.fixture
def layered(store, tmp_path):
    """The same store, its six numbers as two layers of three."""
    writer = StoreWriter.open(tmp_path / "layered", store.provenance)
    for level in store.levels:
        records = [store.record(level, name) for name in store.ids(level)]
        writer.append(
            level,
            [type(one)(**{**vars(one), "vector": one.vector.reshape(2, 3)}) for one in records],
        )
    return KnowledgeStore.load(writer.path)


def test_every_arm_scores_the_same(table, store, layered):
    assert layered.shape("user") == (2, 3)
    one, two = (quick(table, knowledge, seeds=2) for knowledge in (store, layered))
    assert two.auc() == one.auc()
    assert set(two.auc()) == {"plain", "enhanced", "random", "shuffled", "learned", "concat", "plain_all"}


def test_trained_weights_load_into_the_same_layers_and_no_others(table, store, layered):
    setting = setting_of(table, split_table(table, "scenario"))
    model = build("enhanced", setting, layered, 0)
    weights = {name: torch.randn_like(value) for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    again = build("enhanced", setting, layered, 1)
    again.load_state_dict(weights)
    users = torch.arange(len(table.user_ids))
    torch.testing.assert_close(model.meta["user"].table(users), again.meta["user"].table(users))
    wider = {
        level: (store.known(level), np.tile(store.vectors(level, store.known(level)), 2))
        for level in store.levels
    }
    with pytest.raises(EnhanceError, match="vectors of 6 numbers, and this store's have 12"):
        setting.enhanced(0, wider).load_state_dict(weights)


@pytest.mark.parametrize("shape", [(4,), (4, 1, 2, 3)])
def test_other_shapes_are_refused(shape):
    backbone = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    knowledge = {"user": (list(range(4)), np.ones(shape, np.float32))}
    with pytest.raises(EnhanceError, match=r"allowed: \[ids, dim\] or \[ids, n_layers, dim\]"):
        enhance(backbone, knowledge, tap="0", keys={"user": "user"}, placement={"user": "bottom"}, width=2)
