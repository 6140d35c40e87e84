"""Models of torch-rechub as they are published, each with its own batch and the tap that its report names."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from zoo_case import ITEMS, USERS, Case

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of its imports
    from torch_rechub.basic.features import DenseFeature, SequenceFeature, SparseFeature
    from torch_rechub.models import multi_task, ranking

MLP = {"dims": [8], "dropout": 0.1}
TOWERS = [{"dims": [4]}, {"dims": [4]}]
TASKS = ["classification", "classification"]


def sparse() -> list[Any]:
    sizes = {"user_id": USERS, "item_id": ITEMS, "domain": 3}
    return [SparseFeature(name, vocab_size=size, embed_dim=4) for name, size in sizes.items()]


def dense() -> list[Any]:
    return [DenseFeature("price"), DenseFeature("age")]


def sequences(pooling: str) -> list[Any]:
    return [
        SequenceFeature("history", ITEMS, embed_dim=4, pooling=pooling, shared_with="item_id", padding_idx=0)
    ]


def batch(data: dict[str, Tensor]) -> Any:
    history = torch.stack([data["item"], data["user"] % ITEMS, data["scenario"]], 1)
    price, age = data["dense"].unbind(1)
    ids = {"user_id": data["user"], "item_id": data["item"], "domain": data["scenario"]}
    return ({**ids, "price": price, "age": age, "history": history},), {}


def attention(kind: Any, **more: Any) -> nn.Module:
    user, item, domain = sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about the transformer that the library makes
        return kind([user, domain], sequences("concat"), [item], mlp_params={"dims": [8]}, **more)


def case(name: str, make: Any, tap: str, output: Any = "probability") -> Case:
    with_noise = lambda: _spread(make())  # noqa: E731
    return Case(name, with_noise, batch, tap, {"user": "user_id", "scenario": "domain"}, output)


def _spread(model: nn.Module) -> nn.Module:
    """Embeddings of a size as after training: the library's start is 0.0001, in which nothing differs."""
    for part in model.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.5)
    return model


CASES = [
    # The embedding layer is called for the wide and for the deep part. The deep network's input is the one
    # place where all of its embeddings and numbers stand together; the wide part stays plain.
    case("WideDeep", lambda: ranking.WideDeep(sparse(), sparse() + dense(), MLP), "mlp:input"),
    # As WideDeep: called for the factorisation machine and for the network; the latter is tapped.
    case("DeepFM", lambda: ranking.DeepFM(sparse() + dense(), sparse(), MLP), "mlp:input"),
    # Called once, and everything comes out of it: cross network and deep network both read knowledge.
    case("DCN", lambda: ranking.DCN(sparse() + dense() + sequences("mean"), 2, MLP), "embedding"),
    case("DCNv2", lambda: ranking.DCNv2(sparse() + dense(), 2, MLP, low_rank=2, num_experts=2), "embedding"),
    # Called once, per field `[batch, fields, dim]`.
    case("AFM", lambda: ranking.AFM(sparse(), 4, t=5), "embedding"),
    case("AutoInt", lambda: ranking.AutoInt(sparse(), dense(), 1, 2, mlp_params=MLP), "sparse_embedding"),
    # Called for profile, history and target; attention is done before they stand together.
    case("DIN", lambda: attention(ranking.DIN, attention_mlp_params={"dims": [4]}), "mlp:input"),
    case("BST", lambda: attention(ranking.BST, nhead=2), "mlp:input"),
    # Called once; experts, gates and towers all read it.
    case(
        "SharedBottom", lambda: multi_task.SharedBottom(sparse() + dense(), TASKS, MLP, TOWERS), "embedding"
    ),
    case("MMOE", lambda: multi_task.MMOE(sparse() + dense(), TASKS, 3, MLP, TOWERS), "embedding"),
    # A regression task: the second column is no probability.
    case(
        "PLE",
        lambda: multi_task.PLE(sparse(), ["classification", "regression"], 2, 1, 1, MLP, TOWERS),
        "embedding",
        ["probability[:,0]", "logit[:,1]"],
    ),
    case("AITM", lambda: multi_task.AITM(sparse() + dense(), 2, MLP, TOWERS), "embedding"),
    # Called three times, and both towers read one concatenation that no module makes: no tap reaches both.
    # The click tower's input is the one to take: clicks are a factor of the third score, too.
    case("ESMM", lambda: multi_task.ESMM(sparse()[:1], sparse()[1:], MLP, MLP), "tower_ctr:input"),
]
