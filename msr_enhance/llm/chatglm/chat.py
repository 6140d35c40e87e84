"""The chat formats of ChatGLM2 and ChatGLM3, as their published code builds one turn without history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msr_enhance.errors import ModelError
from msr_enhance.llm.chatglm.family import generation, is_base


@dataclass(frozen=True, eq=False)
class ChatGLM2:
    """``[Round 1]``, the question and the opening of the answer, as one text.

    The format is plain text, so it has no token that a prompt could forge; a prompt that holds
    ``[Round 2]`` is read as it stands, as in the published code.
    """

    tokenizer: Any

    end_ids = frozenset[int]()
    before = "[Round 1]\n\n问："
    after = "\n\n答："

    @property
    def identity(self) -> Mapping[str, Any]:
        """The text around a message."""
        return {"format": "chatglm2", "before": self.before, "after": self.after}

    def encode(self, prompt: str) -> list[int]:
        """Token ids of one user message; ``[gMASK] sop`` comes first."""
        return _ids(self.tokenizer, f"{self.before}{prompt}{self.after}", add_special_tokens=True)


@dataclass(frozen=True, eq=False)
class ChatGLM3:
    """Role tokens around a message that is tokenised for itself, after a line break of its own."""

    tokenizer: Any

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that open the user's next turn or the answer of a tool."""
        return frozenset({self._id("<|user|>"), self._id("<|observation|>")})

    @property
    def identity(self) -> Mapping[str, Any]:
        """The tokens and texts around a message."""
        before, after = ["[gMASK]", "sop", "<|user|>", "\n"], ["<|assistant|>"]
        return {"format": "chatglm3", "before": before, "after": after}

    def encode(self, prompt: str) -> list[int]:
        """Token ids of one user message, up to the token that opens the answer."""
        opening = [self._id("[gMASK]"), self._id("sop"), self._id("<|user|>"), *_ids(self.tokenizer, "\n")]
        return [*opening, *_ids(self.tokenizer, prompt), self._id("<|assistant|>")]

    def _id(self, token: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(token))


def chat_format(tokenizer: Any, raw: Mapping[str, Any], name: str) -> ChatGLM2 | ChatGLM3 | None:
    """The chat format of a checkpoint.

    Args:
        tokenizer: From `load_tokenizer`.
        raw: Content of its `config.json`.
        name: Name of the model or path of its folder.

    Returns:
        The format; None for a base model.

    Raises:
        ModelError: If neither the name nor the configuration tells ChatGLM2 from ChatGLM3: the wrong
            format would be answered, only worse.
    """
    if is_base(raw, name):
        return None
    match generation(raw, name):
        case 2:
            return ChatGLM2(tokenizer)
        case 3:
            return ChatGLM3(tokenizer)
    raise ModelError(
        f"{name}: neither the name nor _name_or_path in config.json says ChatGLM2 or ChatGLM3, and their "
        "chat formats differ. Name the folder, for example, chatglm2-6b-mine, or write --no-chat "
        "(chat=False) to send the bare prompt."
    )


def _ids(tokenizer: Any, text: str, *, add_special_tokens: bool = False) -> list[int]:
    # split_special_tokens keeps text such as "</s>" text.
    plain = {"add_special_tokens": add_special_tokens, "split_special_tokens": True}
    return list(tokenizer(text, **plain)["input_ids"])
