"""What the generated layers look like."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST: Final = 1 << 20
"""No size is larger: products of two still fit into any count of numbers."""


class MetaConfig(BaseModel):
    """Shape, start and arithmetic of the generated layers (equations 4 to 9 of arXiv 2406.12529).

    Attributes:
        layers: K, the number of generated layers of a branch (the paper's best is 2).
        hidden: Width between generated layers.
        rank: Numbers a knowledge vector is projected to before it generates weights. The one fully
            connected meta network is then a product of two matrices, and no weights are made for a
            row or a user at all. `None` is the full network of the paper. Scenarios, which are few, need
            neither: their layers hold one matrix a scenario, which is the full network exactly.
        compact: Numbers of a vector that are kept beside the model: its leading directions over the training
            users (PCA), from which `rank` are learned. Unused with `rank=None`, which reads whole vectors.
        projection: How `rank` numbers come out of `compact`: ``learned``, starting at the leading ones, or
            ``frozen``, which keeps and reads only those: smaller and faster.
        path: How users' layers are computed: ``mix`` mixes outputs, ``gen`` makes each user's weights once
            and runs that user's rows through them; ``auto`` takes what costs less for the batch. All give
            the same numbers to about 1e-6.
        dropout: Share of the tapped embedding's numbers dropped before every branch while training.
        knowledge_dropout: Share of the training rows whose vector is replaced by zero, so that the
            path of an unknown user is trained too.
        alpha: Start of the mixing weight of a parallel branch.
        fidelity: ``"safe"`` starts as the plain model and adds to it; ``"paper"`` is equations 7 to 9
            to the letter: no residual, a ReLU on every generated layer, and the backbone's logit
            weighted by `1 - alpha`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(default=2, ge=1, le=MOST)
    hidden: int = Field(default=32, ge=1, le=MOST)
    rank: int | None = Field(default=16, ge=1, le=MOST)
    compact: int = Field(default=256, ge=1, le=MOST)
    projection: Literal["learned", "frozen"] = "learned"
    path: Literal["auto", "mix", "gen"] = "auto"
    dropout: float = Field(default=0.2, ge=0, lt=1)
    knowledge_dropout: float = Field(default=0.1, ge=0, lt=1)
    alpha: float = 0.5
    fidelity: Literal["safe", "paper"] = "safe"

    @classmethod
    def for_fidelity(cls, fidelity: str) -> MetaConfig:
        """The defaults of a fidelity: the paper's has full rank, width 64 and no dropout of its own."""
        if fidelity == "paper":
            return cls(fidelity="paper", hidden=64, rank=None, dropout=0.0, knowledge_dropout=0.0)
        return cls.model_validate({"fidelity": fidelity})
