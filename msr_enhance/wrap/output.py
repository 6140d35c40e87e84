"""What a backbone returns: logits or probabilities, of one task or several, alone or in a container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.wrap.embedding import described
from msr_enhance.wrap.path import Members, parse

Kind = Literal["logit", "probability"]


@dataclass(frozen=True)
class Output:
    """Where the scores stand in the backbone's result, and what they are.

    Written ``"logit"`` or ``"probability"`` for the result itself, with ``[MEMBER]`` behind for one member
    of a dict or tuple: ``"logit[ctr]"``; and as a sequence of these for several tasks.
    """

    parts: tuple[tuple[Kind, Members], ...]

    @classmethod
    def parse(cls, output: str | tuple[str, ...] | list[str]) -> Output:
        """Read an output as it is written.

        Raises:
            EnhanceError: It is not of that form.
        """
        parts: list[tuple[Kind, Members]] = []
        for text in (output,) if isinstance(output, str) else output:
            kind, members = parse(text)
            if kind not in ("logit", "probability"):
                more = "Write output='logit[MEMBER]' for a member of a dict or tuple."
                raise EnhanceError(not_one_of("output", kind, ("logit", "probability"), more))
            parts.append((kind, members))  # type: ignore[arg-type]  # one of the two
        if len({members for _, members in parts}) != len(parts) or not parts:
            raise EnhanceError(f"output={output!r} names no score, or one twice; write each once.")
        return cls(tuple(parts))

    @property
    def written(self) -> list[str]:
        """As it is written."""
        return [f"{kind}{members}" for kind, members in self.parts]

    def scores(self, result: Any, rows: int) -> list[Tensor]:
        """Each part's scores `[batch, tasks of the part]`.

        Raises:
            EnhanceError: They are not numbers of each row.
        """
        found = []
        for kind, members in self.parts:
            score = members.get(result)
            if not isinstance(score, Tensor) or not score.is_floating_point() or not _is_scores(score, rows):
                raise EnhanceError(
                    f"The backbone returned {described(score)} as {kind}{members} for {rows} rows; allowed: "
                    "[batch], [batch, 1] or [batch, tasks]. Write output='logit[MEMBER]' for one member of a "
                    f"dict or tuple, 'logit[:,0]' for one column; it returned {described(result)}."
                )
            found.append(score.reshape(rows, -1) if rows else score.reshape(0, _tasks(score)))
        return found

    def replaced(self, result: Any, scores: list[Tensor]) -> Any:
        """The result with its scores changed, each in its own shape."""
        for (_, members), score in zip(self.parts, scores, strict=True):
            result = members.put(result, score.reshape(members.get(result).shape))
        return result


def _is_scores(score: Tensor, rows: int) -> bool:
    return (score.dim() == 0 and rows == 1) or (score.dim() in (1, 2) and score.shape[0] == rows)


def _tasks(score: Tensor) -> int:
    return score.shape[1] if score.dim() == 2 else 1


def shifted_probability(probability: Tensor, shift: Tensor) -> Tensor:
    """`sigmoid(logit(p) + shift)` without the logit: exact at p = 0 and 1, and equal to p for shift 0.

    Clipping p back to a logit would lose the gradient of saturated rows.
    """
    small = torch.exp(-shift.abs()).clamp(min=torch.finfo(shift.dtype).tiny)
    up = probability / (probability + (1 - probability) * small)
    down = probability * small / (probability * small + (1 - probability))
    return torch.where(shift >= 0, up, down)


def as_logit(probability: Tensor) -> Tensor:
    """`log(p / (1 - p))`, finite: p is kept from 0 and 1 only as far as its type can tell them apart."""
    kind = torch.finfo(probability.dtype)
    return torch.log(probability.clamp(min=kind.tiny)) - torch.log1p(-probability.clamp(max=1 - kind.eps / 2))
