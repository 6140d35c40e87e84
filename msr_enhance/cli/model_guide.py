"""Which models this machine can read with, and about how fast: known sizes against its memory and speed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from msr_enhance.llm.estimate import ModelSize, roofline, tokens_at_once
from msr_enhance.llm.hardware import Hardware

PROMPT_TOKENS, ANSWER_TOKENS = 1_500, 300
"""The prompt and answer that the guide counts with."""

_SPARE = 0.9  # share of the free memory that may be filled
_PREFILL = {"cpu": 2_048, "cuda": PROMPT_TOKENS}  # tokens that go through the layers at once, at the least


def _llama(
    parameters: int, layers: int, heads: int, kept: int, head: int, words: int, tied: bool
) -> ModelSize:
    """Sizes of a decoder of the Llama kind: `heads` of `head` numbers each, `kept` of them with keys."""
    hidden = heads * head
    return ModelSize(
        parameters=parameters,
        layers=layers,
        hidden=hidden,
        attention=hidden,
        kv=layers * 2 * kept * head,
        table=0 if tied else words * hidden,
        head=words * hidden,
    )


# Read from the published configurations; the parameters are what transformers builds from them.
KNOWN: dict[str, ModelSize] = {
    "Qwen2.5-0.5B": _llama(494_032_768, 24, 14, 2, 64, 151_936, True),
    "Qwen2.5-1.5B": _llama(1_543_714_304, 28, 12, 2, 128, 151_936, True),
    "Qwen2.5-3B": _llama(3_085_938_688, 36, 16, 2, 128, 151_936, True),
    "ChatGLM2-6B": _llama(6_243_584_000, 28, 32, 2, 128, 65_024, False),
    "Llama-3.1-8B": _llama(8_030_261_248, 32, 32, 8, 128, 128_256, False),
    "Qwen2.5-14B": _llama(14_770_033_664, 48, 40, 8, 128, 152_064, False),
    "Qwen2.5-32B": _llama(32_763_876_352, 64, 40, 8, 128, 152_064, False),
    "Llama-3.1-70B": _llama(70_553_706_496, 80, 64, 8, 128, 128_256, False),
}


@dataclass(frozen=True)
class Fit:
    """How one model fits.

    Attributes:
        model: Its name.
        parameters: Its weights.
        dtype: The dtype counted in.
        needs: Bytes for its weights, the batch and working space; on a GPU, where the batch is made to
            fit, for one prompt.
        fits: Whether the free memory holds that; None where the memory is unknown.
        rows: Prompts read at once.
        seconds_a_user: At the measured speed, answers of full length; an estimate.
    """

    model: str
    parameters: int
    dtype: str
    needs: int
    fits: bool | None
    rows: int
    seconds_a_user: float

    def data(self) -> dict[str, Any]:
        """As JSON, numbers rounded."""
        return {**vars(self), "seconds_a_user": float(f"{self.seconds_a_user:.2g}")}


def fits(hardware: Hardware, memory: tuple[int, int] | None) -> list[Fit]:
    """Hold every known model against a machine.

    Args:
        hardware: What was measured; its dtype is the one counted in.
        memory: Bytes where the model would be, `(in all, free)`; None where unknown.
    """
    one, dtype, kind = PROMPT_TOKENS + ANSWER_TOKENS, hardware.dtype, hardware.device.partition(":")[0]
    found = []
    for name, size in KNOWN.items():
        rows = max(1, tokens_at_once(size, dtype, hardware.device, memory and memory[0]) // one)
        needs = size.memory_bytes(
            dtype, one * (rows if kind == "cpu" else 1), _PREFILL.get(kind, PROMPT_TOKENS)
        )
        batch = roofline(size, hardware, prompt_tokens=PROMPT_TOKENS, new_tokens=ANSWER_TOKENS, batch=rows)
        found.append(
            Fit(
                model=name,
                parameters=size.parameters,
                dtype=dtype,
                needs=needs,
                fits=None if memory is None else needs <= _SPARE * memory[1],
                rows=rows,
                seconds_a_user=batch.total / rows,
            )
        )
    return found
