"""What is measured: one case for each row of the table of targets, and the package's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msr_enhance.meta.config import MetaConfig

Group = Literal["train", "request", "offline"]
FULL = "train, full-width"


@dataclass(frozen=True)
class Case:
    """One ratio.

    Attributes:
        name: What it is called.
        group: ``train`` steps, ``request`` of one user, or ``offline`` scoring.
        batches: Kind of batches, see `World.draw`.
        meta: Shape of the generated layers.
        users: Whether there are user layers.
        cached: The request's user was here before.
        looked_up: Keys come with the request's rows; without it, one table row a level.
        target: Ratio to stay below; None where it is only reported.
    """

    name: str
    group: Group
    batches: str
    meta: MetaConfig
    users: bool = True
    cached: bool = False
    looked_up: bool = False
    target: float | None = None


def shape(hidden: int, rank: int | None) -> MetaConfig:
    """Layers without dropout and with frozen conditions: what the targets were set for."""
    return MetaConfig(hidden=hidden, rank=rank, projection="frozen", dropout=0.0, knowledge_dropout=0.0)


DEFAULT = MetaConfig()
CASES = (
    Case("train, scenario only, H64", "train", "shuffled", shape(64, 16), users=False, target=1.12),
    Case("train, shuffled, H16 r8", "train", "shuffled", shape(16, 8), target=1.6),
    Case("train, shuffled, H64 r16", "train", "shuffled", shape(64, 16), target=3.3),
    Case("train, shuffled, default", "train", "shuffled", DEFAULT),
    Case("train, blocks of 32, H32 r32", "train", "blocks", shape(32, 32), target=1.35),
    Case("train, blocks of 32, H64 r16", "train", "blocks", shape(64, 16), target=1.5),
    Case("train, blocks of 32, default", "train", "blocks", DEFAULT),
    Case(f"{FULL}, shuffled, H64", "train", "shuffled", shape(64, None)),
    Case("request, cached, H16", "request", "request", shape(16, 16), cached=True, target=1.2),
    Case("request, cached, H32", "request", "request", shape(32, 16), cached=True, target=1.25),
    Case("request, cached, H64", "request", "request", shape(64, 16), cached=True, target=1.35),
    Case(
        "request, cached, H64, keys of rows", "request", "request", shape(64, 16), cached=True, looked_up=True
    ),
    Case("request, cached, default", "request", "request", DEFAULT, cached=True),
    Case("request, generated, H16 r16", "request", "request", shape(16, 16), target=1.45),
    Case("request, generated, H32 r32", "request", "request", shape(32, 32), target=1.45),
    Case("request, generated, H64 r16", "request", "request", shape(64, 16), target=1.45),
    Case("request, generated, default", "request", "request", DEFAULT),
    Case("offline, sorted, H64 r16", "offline", "sorted", shape(64, 16), target=1.65),
    Case("offline, shuffled, H16 r8", "offline", "shuffled", shape(16, 8), target=1.6),
    Case("offline, shuffled, H64 r16", "offline", "shuffled", shape(64, 16), target=4.2),
    Case("offline, shuffled, default", "offline", "shuffled", DEFAULT),
)


def chosen(only: str | None) -> list[Case]:
    """Cases whose name holds one of the parts between commas; all without any."""
    if only is None:
        return list(CASES)
    found = [case for case in CASES if any(part.strip() in case.name for part in only.split(","))]
    if not found:
        raise SystemExit(f"--only {only} names no row; allowed: parts of {[case.name for case in CASES]}")
    return found
