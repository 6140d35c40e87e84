"""The arms of a comparison: the plain model, the enhanced one, and controls that hold no knowledge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from msr_enhance.backbones.aitm import AITM
from msr_enhance.backbones.mmoe import MMoE
from msr_enhance.backbones.omoe import OMoE
from msr_enhance.backbones.ple import PLE
from msr_enhance.backbones.shared_bottom import SharedBottom
from msr_enhance.backbones.star import STAR
from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.branch import Place
from msr_enhance.meta.config import MetaConfig
from msr_enhance.meta.statistics import Statistics
from msr_enhance.meta.table import VectorTable
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.enhance import enhance
from msr_enhance.wrap.knowledge import Ids, Vectors, read_raw, trained_on

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "shared_bottom": SharedBottom,
    "omoe": OMoE,
    "mmoe": MMoE,
    "ple": PLE,
    "aitm": AITM,
    "star": STAR,
}
ARMS: dict[str, str] = {
    "plain": "the backbone alone",
    "enhanced": "with the store's knowledge",
    "random": "vectors of noise with the store's mean and spread",
    "shuffled": "every user gets another user's vector",
    "learned": "a trained vector per user instead of knowledge",
    "concat": "the user's vector as plain input, no generated layers",
    "plain_all": "the backbone alone, trained on the history rows too",
}


@dataclass(frozen=True)
class Setting:
    """What all arms of one comparison share.

    Attributes:
        backbone: Name of the backbone.
        field_sizes: Values of each categorical field, for the rows an arm trains on.
        users: Id at each user position.
        scenarios: Name at each scenario position.
        training_users: Users of the training rows; the vectors are centred over them.
        placement: Where each level stands.
        meta: Shape of the generated layers.
    """

    backbone: str
    field_sizes: tuple[int, ...]
    users: Ids
    scenarios: tuple[str, ...]
    training_users: Ids
    placement: Mapping[str, Place | None] | None = None
    meta: MetaConfig | None = None

    def plain(self, seed: int, extra_width: int = 0) -> nn.Module:
        """A fresh backbone; the same seed gives the same start in every arm."""
        if self.backbone not in BACKBONES:
            raise EnhanceError(not_one_of("backbone", self.backbone, BACKBONES))
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(seed)
            return BACKBONES[self.backbone](
                list(self.field_sizes), len(self.scenarios), extra_width=extra_width
            )

    def enhanced(self, seed: int, knowledge: Mapping[str, Vectors], learned: Sequence[str] = ()) -> nn.Module:
        """A fresh backbone with generated layers around it."""
        backbone = self.plain(seed)
        return enhance(
            backbone,
            knowledge,
            tap="embedding",
            keys={"user": "user", "scenario": "scenario"},
            vocabulary={"user": self.users, "scenario": self.scenarios},
            training_ids={"user": self.training_users},
            placement=self.placement,
            width=getattr(backbone.embedding, "width", None),
            meta=self.meta,
            learned=learned,
            seed=seed,
        )


def build(arm: str, setting: Setting, store: KnowledgeStore, seed: int) -> nn.Module:
    """The untrained model of an arm.

    Args:
        arm: One of `ARMS`.
        setting: What all arms share.
        store: The knowledge.
        seed: Of the weights, the noise and the shuffle.
    """
    if arm in ("plain", "plain_all"):
        return setting.plain(seed)
    knowledge: dict[str, Vectors] = {
        level: (store.known(level), store.vectors(level, store.known(level))) for level in store.levels
    }
    draw = np.random.default_rng(seed)
    if arm == "enhanced":
        return setting.enhanced(seed, knowledge)
    if arm == "random":
        noise = {level: (ids, _noise(draw, vectors)) for level, (ids, vectors) in knowledge.items()}
        return setting.enhanced(seed, noise)
    ids, vectors = knowledge["user"]
    if arm == "shuffled":
        return setting.enhanced(seed, {**knowledge, "user": (ids, _others(draw, vectors))})
    if arm == "learned":
        # Only users with a training row can learn a vector; the others are unknown, as they are to knowledge.
        size = (len(setting.training_users), *vectors.shape[1:])
        trained: Vectors = (setting.training_users, draw.normal(size=size).astype(np.float32))
        return setting.enhanced(seed, {**knowledge, "user": trained}, learned=["user"])
    if arm == "concat":
        return Concatenated(setting, ids, vectors, seed)
    raise EnhanceError(not_one_of("arm", arm, ARMS))


class Concatenated(nn.Module):
    """The knowledge vector as a plain input of the backbone (the way of KAR), scaled to unit variance.

    Shape:
        batch with `fields`, `scenario`, `user` → logits `[batch]`.
    """

    def __init__(self, setting: Setting, ids: Ids, vectors: npt.NDArray[np.float32], seed: int) -> None:
        super().__init__()
        raw = read_raw({"user": (ids, vectors)}, "user", setting.users)
        whole = Statistics.of(raw, trained_on(setting.users, setting.training_users), None)
        self.table = VectorTable(raw, whole)
        self.backbone = setting.plain(seed, extra_width=self.table.dim)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits `[batch]`."""
        extra = self.table(batch["user"]) * self.table.dim**0.5
        logits: Tensor = self.backbone({**batch, "extra": extra})
        return logits


def groups(model: nn.Module, lr: float, *, meta_factor: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of any arm: generated layers learn at their own rate, where there are any."""
    own = getattr(model, "parameter_groups", None)
    if own is not None:
        found: list[dict[str, Any]] = own(lr, meta_factor, weight_decay)
        return found
    return [{"params": list(model.parameters()), "lr": lr, "weight_decay": weight_decay}]


def _noise(draw: np.random.Generator, like: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Normal numbers with the mean and spread of each column; spread 1 where no column has any."""
    spread = like.std(axis=0)
    noise = draw.normal(size=like.shape) * (spread if spread.any() else 1.0) + like.mean(axis=0)
    return np.asarray(noise, np.float32)


def _others(draw: np.random.Generator, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows moved round a random circle, so that nobody keeps their own."""
    if len(vectors) < 2:
        raise EnhanceError("shuffled needs two users with knowledge; leave that arm out.")
    circle = draw.permutation(len(vectors))
    moved: npt.NDArray[np.float32] = np.empty_like(vectors)
    moved[circle] = vectors[np.roll(circle, 1)]
    return moved
