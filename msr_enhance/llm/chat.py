"""Chat formats: what stands around a prompt when a chat model is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from msr_enhance.errors import ModelError
from msr_enhance.llm.plain_text import control_ids

_MARK = "\u2063message\u2063"
# Some templates print today's date. The date would be part of every answer and change each midnight,
# so that a run could not be resumed: it is always this one.
_DATE = "26 Jul 2024"
_FIXED_DATE = "{%- macro strftime_now(format) -%}" + _DATE + "{%- endmacro -%}"


class Chat(Protocol):
    """A chat format.

    Attributes:
        identity: What the format is, as plain JSON; kept in the store.
        end_ids: Token ids that end an answer, beside those the model names itself.
    """

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the format is, as plain JSON."""
        ...

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end an answer."""
        ...

    def encode(self, prompt: str) -> list[int]:
        """Token ids of one user message, up to where the model begins to answer."""
        ...


class TemplateChat:
    """The chat template of a tokenizer, with one user message and no system message of ours.

    Reasoning models are asked not to think aloud (`enable_thinking=False`), where their template knows
    the switch: the thoughts would use up the answer's tokens.

    Args:
        tokenizer: A fast tokenizer with a chat template.

    Raises:
        ModelError: If the template drops the message or cannot be rendered.
    """

    end_ids: frozenset[int] = frozenset()

    def __init__(self, tokenizer: Any) -> None:
        self._before, self._after = _frame(tokenizer)
        self._tokenizer = tokenizer
        self._special = control_ids(tokenizer)
        self._parts = [self._ids(part) for part in (self._before, self._after)]
        self._controls = sum(map(self._count, self._parts))

    @property
    def identity(self) -> Mapping[str, Any]:
        """The text before and after the message."""
        return {"before": self._before, "after": self._after}

    def encode(self, prompt: str) -> list[int]:
        """Token ids of the whole conversation; the prompt never adds a control token."""
        # As one text, so that tokens merge over the borders just as they did when the model was trained.
        whole = self._ids(f"{self._before}{prompt}{self._after}")
        if self._count(whole) == self._controls:
            return whole
        before, after = self._parts
        return [*before, *self._ids(prompt, split_special_tokens=True), *after]

    def _ids(self, text: str, **options: Any) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, **options)["input_ids"])

    def _count(self, ids: list[int]) -> int:
        return sum(one in self._special for one in ids)


def _frame(tokenizer: Any) -> tuple[str, str]:
    """The text of a conversation before and after its one message."""
    try:
        template = tokenizer.get_chat_template()
        if "strftime_now" in template:
            template = _FIXED_DATE + template
        # Templates of multimodal models go through a list of parts instead of a text.
        for content in (_MARK, [{"type": "text", "text": _MARK}]):
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                chat_template=template,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
                date_string=_DATE,
            )
            if _MARK in text:
                break
    except Exception as error:  # a template is a foreign program
        raise ModelError(
            f"The chat template cannot be rendered: {type(error).__name__}: {str(error)[:300]}. "
            "Write --no-chat (chat=False) to send the bare prompt."
        ) from error
    before, *after = text.split(_MARK)
    if len(after) != 1:
        what = "repeats" if after else "drops"
        raise ModelError(f"The chat template {what} the user's message; write --no-chat (chat=False).")
    return before, after[0]
