"""Measure a case: the plain backbone and the enhanced one take turns on the same batches."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from cost.batches import DIM, SCENARIOS, Batch, World, rho
from cost.cases import FULL, Case
from cost.clock import Way, paired, peak_memory, quartiles
from cost.floors import floor, star_operations
from cost.frozen_star import FrozenSTAR
from cost.lazy_adam import LazyAdam
from msr_enhance.backbones.star import STAR
from msr_enhance.wrap.enhance import enhance
from msr_enhance.wrap.model import EnhancedModel

HIDDEN, AUXILIARY = (256, 128, 64), (64,)
COMPACT, FULL_WIDTH = 256, 4096
SAME = 1e-5
KEYS = {"user": "user", "scenario": "scenario"}


@dataclass(frozen=True)
class Figure:
    """What came out of a case.

    Attributes:
        name: Of the case.
        target: Ratio to stay below, None where there is none.
        floor: What the products alone allow.
        ratio: Median of paired ratios, enhanced to plain.
        quartiles: Of the paired ratios.
        eager: Median ratio to the backbone that is not frozen (requests and scoring).
        plain_ms: Median milliseconds of the plain side; not to be compared between machines.
        pairs: How many.
        rho: Rows a distinct user in a batch.
        memory: Peak bytes of a training step, plain and enhanced.
    """

    name: str
    target: float | None
    floor: float
    ratio: float
    quartiles: tuple[float, float]
    eager: float | None
    plain_ms: float
    pairs: int
    rho: float
    memory: tuple[int, int] | None

    @property
    def verdict(self) -> str:
        """``reached``, ``missed``, or ``-`` without a target."""
        return "-" if self.target is None else "reached" if self.ratio <= self.target else "missed"

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "verdict": self.verdict}


class Bench:
    """Two backbones of one size, and everything that cases share.

    Args:
        world: Sizes and seed.
        device: Where everything runs.
        full_width: Numbers of a vector that the full-width layers read.
    """

    def __init__(self, world: World, device: str, full_width: int = FULL_WIDTH) -> None:
        self.world, self.device, self.full_width = world, device, full_width
        torch.manual_seed(world.seed)
        self.plain, self.host = self._star(), self._star()
        self.plain_adam, self.host_adam = adam(self.plain), adam(self.host)
        self._batches: dict[str, list[Batch]] = {}
        self._model: EnhancedModel | None = None  # whose hook is on the host

    def _star(self) -> STAR:
        star = STAR(self.world.fields, SCENARIOS, DIM, hidden=HIDDEN, auxiliary=AUXILIARY, dropout=0.0)
        return star.to(self.device)

    def batches(self, kind: str) -> list[Batch]:
        """Batches of a kind, on the device."""
        if kind not in self._batches:
            made = self.world.draw(kind, 16 if kind == "request" else 8)
            self._batches[kind] = [
                {name: value.to(self.device) for name, value in batch.items()} for batch in made
            ]
        return self._batches[kind]

    def figure(self, case: Case, pairs: int) -> Figure:
        """Measure a case."""
        batches = self.batches(case.batches)
        ways, repeat = (self._training if case.group == "train" else self._serving)(case, batches)
        pairs = min(pairs, 3) if case.name.startswith(FULL) else pairs
        seconds = paired(ways, pairs, repeat, self.device)
        memory = None
        if case.group == "train":
            peaks = [peak_memory(lambda way=way: way(0), self.device) for way in ways.values()]
            memory = peaks[0], peaks[1]
        low, middle, high = quartiles(seconds["enhanced"], seconds["plain"])
        eager = quartiles(seconds["enhanced"], seconds["eager"])[1] if "eager" in seconds else None
        known = DIM if case.group == "train" else 0  # frozen, the scenario's embedding is a constant
        return Figure(
            case.name,
            case.target,
            floor(
                self._way(case, batches),
                width=self.world.width,
                hidden=case.meta.hidden,
                rank=case.meta.rank or self.full_width,
                rho=rho(batches),
                operations=star_operations(self.world.width, HIDDEN, AUXILIARY, known),
                training=case.group == "train",
            ),
            middle,
            (low, high),
            eager,
            float(np.median(seconds["plain"])) * 1e3,
            pairs,
            rho(batches),
            memory,
        )

    def _way(self, case: Case, batches: list[Batch]) -> Any:
        if not case.users or case.cached:
            return "cached" if case.users else "none"
        grouped = case.meta.rank is None or case.batches in ("blocks", "sorted", "request")
        return "gen" if grouped else "mix"

    def _enhanced(self, star: STAR, case: Case) -> EnhancedModel:
        draw = np.random.default_rng(self.world.seed)
        dim = COMPACT if case.meta.rank is not None else self.full_width
        vocabulary = {"user": range(self.world.users), "scenario": range(SCENARIOS)}
        knowledge = {
            level: (list(ids), draw.standard_normal((len(ids), dim), dtype=np.float32))
            for level, ids in vocabulary.items()
        }
        model = enhance(
            star,
            knowledge,
            tap="embedding",
            keys=KEYS if case.users else {"scenario": "scenario"},
            placement={"user": "bottom" if case.users else None, "scenario": "parallel"},
            vocabulary=vocabulary,
            width=self.world.width,
            meta=case.meta,
        )
        shake(model.meta)
        return model

    def _training(self, case: Case, batches: list[Batch]) -> tuple[dict[str, Way], int]:
        self.plain.train(), self.host.train()
        if self._model is not None:
            self._model.unwrap()
        self._model = model = self._enhanced(self.host, case).train()
        generated = torch.optim.Adam(model.meta.parameters(), lr=1e-4, fused=True)

        def plain(turn: int) -> None:
            batch = batches[turn % len(batches)]
            functional.binary_cross_entropy_with_logits(self.plain(batch), batch["label"]).backward()
            self.plain_adam.step()
            self.plain_adam.zero_grad()

        def enhanced(turn: int) -> None:
            batch = batches[turn % len(batches)]
            functional.binary_cross_entropy_with_logits(model(batch), batch["label"]).backward()
            self.host_adam.step()
            generated.step()
            self.host_adam.zero_grad()
            generated.zero_grad(set_to_none=True)

        return {"plain": plain, "enhanced": enhanced}, 1

    def _serving(self, case: Case, batches: list[Batch]) -> tuple[dict[str, Way], int]:
        star = self.plain.eval()
        frozen = FrozenSTAR(star)
        model = self._enhanced(star, case).eval()
        with torch.no_grad():
            want, batch = model(batches[0]), batches[0]
            same(frozen(batch), star_plain(model, batch), "the frozen STAR")
        serving = model.freeze(cache=len(batches) if case.cached else None)
        model.unwrap()
        serving.backbone = frozen
        asked = [
            None
            if case.group != "request" or case.looked_up
            else {level: batch[level][:1].clone() for level in KEYS}
            for batch in batches
        ]
        with torch.no_grad():
            same(serving(batches[0], rows=asked[0]), want, "the frozen enhanced model", 10 * SAME)

        @torch.inference_mode()
        def plain(turn: int) -> None:
            frozen(batches[turn % len(batches)])

        @torch.inference_mode()
        def enhanced(turn: int) -> None:
            place = turn % len(batches)
            serving(batches[place], rows=asked[place])

        @torch.inference_mode()
        def eager(turn: int) -> None:
            star(batches[turn % len(batches)])

        return {"plain": plain, "enhanced": enhanced, "eager": eager}, 16 if case.group == "request" else 1


def adam(star: STAR) -> LazyAdam:
    """The optimizer of both sides."""
    table = star.embedding.table
    return LazyAdam(table, [weight for weight in star.parameters() if weight is not table.weight], lr=1e-4)


@torch.no_grad()
def shake(layers: nn.Module) -> None:
    """Layers that start at zero get weights, so that equal scores say something."""
    for weight in layers.parameters():
        if weight.dim() > 1 and not weight.any():
            weight.normal_(std=0.05)


def star_plain(model: EnhancedModel, batch: Batch) -> torch.Tensor:
    """Scores of the backbone alone."""
    with model.disabled():
        scores: torch.Tensor = model(batch)
    return scores


def same(seen: torch.Tensor, wanted: torch.Tensor, name: str, most: float = SAME) -> None:
    """Nothing is timed that gives other scores, measured by the largest one."""
    worst = float((seen - wanted).abs().max() / wanted.abs().max().clamp(min=1))
    if worst > most:
        raise SystemExit(
            f"{name} differs from the live one by {worst:.1e}, more than {most}: nothing is timed"
        )
