"""A model's outline: configuration, tokenizer and chat format; all that is known without its weights."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from msr_enhance.errors import ModelError
from msr_enhance.fingerprint import fingerprint
from msr_enhance.llm import builtin
from msr_enhance.llm.chat import Chat, TemplateChat
from msr_enhance.llm.chatglm.chat import chat_format
from msr_enhance.llm.chatglm.config import native_config
from msr_enhance.llm.chatglm.family import is_chatglm
from msr_enhance.llm.chatglm.tokenizer import load_tokenizer
from msr_enhance.llm.chatglm.weights import ChatGLMForCausalLM
from msr_enhance.llm.hub import local_folder, read_config
from msr_enhance.llm.plain_text import plain_text

# Of a configuration: what names it, what the loader decides, and what changes no number.
_SAYS_NOTHING = frozenset(
    (
        "_name_or_path",
        "architectures",
        "auto_map",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    )
)


@dataclass(frozen=True, eq=False)
class Outline:
    """All that is known of a model without its weights.

    Attributes:
        name: How the model was named.
        revision: Its commit on the Hub, when it came from there.
        config: Its transformers configuration.
        tokenizer: Its fast tokenizer.
        chat: Its chat format; None for a base model.
        remote_code: Whether code of its repository runs.
    """

    name: str
    revision: str | None
    config: Any
    tokenizer: Any
    chat: Chat | None = None
    remote_code: bool = False
    _plain: Callable[[str], str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plain", plain_text(self.tokenizer))

    @classmethod
    def of(cls, model: Any, tokenizer: Any, *, name: str, chat: bool = True) -> Outline:
        """The outline of a model that is in memory already, with its fast tokenizer."""
        return cls(name, None, model.config, tokenizer, _chat(tokenizer) if chat else None)

    @property
    def label(self) -> str:
        """The name that a store keeps: of a folder its last part, so that it may be mounted elsewhere."""
        return Path(self.name).resolve().name if Path(self.name).is_dir() else self.name

    @property
    def config_digest(self) -> str:
        """Short digest of all that the configuration says of the computation."""
        says = {key: value for key, value in self.config.to_diff_dict().items() if key not in _SAYS_NOTHING}
        return fingerprint(json.loads(json.dumps(says, default=str)))[:16]

    @property
    def window(self) -> int | None:
        """Most tokens of prompt and answer together; None where nothing limits them.

        Of a model with two sets of rotary factors (longrope) only the window of the short ones: which
        set is used depends on the longest row of a batch, and a row must not depend on others.
        """
        text = self.config.get_text_config()
        names = ("max_position_embeddings", "max_seq_len")
        sizes = [int(getattr(text, name, None) or 0) for name in names]
        rope = getattr(text, "rope_parameters", None) or {}
        if rope.get("rope_type") == "longrope":
            sizes.append(int(rope.get("original_max_position_embeddings") or 0))
        return min((size for size in sizes if size > 0), default=None)

    def encode(self, prompt: str) -> list[int]:
        """Token ids as the model sees them. Text of a log can never become a control token."""
        # A lone surrogate is no text that a tokenizer can read; it becomes a question mark.
        prompt = self._plain(prompt.encode("utf-8", "replace").decode())
        if self.chat is not None:
            return self.chat.encode(prompt)
        return list(self.tokenizer(prompt, split_special_tokens=True)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without control tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True)) if len(ids) else ""

    def parameters(self) -> int:
        """Number of weights; counted on the meta device, which takes no memory."""
        with torch.device("meta"):
            model = _empty_model(self.config, self.remote_code)
        return sum(weight.numel() for weight in model.parameters())

    def end_ids(self, model: Any) -> frozenset[int]:
        """Every id that ends an answer: the model's, the tokenizer's and the chat format's."""
        named = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
        ids = {named} if isinstance(named, int) else set(named or ())
        own = {self.tokenizer.eos_token_id} - {None}
        return frozenset(map(int, ids | own | (self.chat.end_ids if self.chat else frozenset())))

    def prompt_limit(self, new: int, cap: int | None = None) -> int | None:
        """Most tokens a prompt may have beside an answer of `new` tokens; `cap` lowers it.

        Raises:
            ModelError: If the answer alone fills the window.
        """
        limits = [limit for limit in (self.window and self.window - new, cap) if limit is not None]
        if limits and min(limits) < 1:
            raise ModelError(
                f"{self.name} has a window of {self.window} tokens, which {new} tokens of answer fill; "
                f"write --max-new-tokens {max(1, (self.window or 4) // 4)}."
            )
        return min(limits, default=None)


def outline(
    model: str | Path = builtin.NAME,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    chat: bool = True,
) -> Outline:
    """What can be known without weights: configuration, tokenizer and chat format.

    Args:
        model: ``"builtin"``, a folder with a transformers checkpoint, or a Hub id.
        revision: Branch, tag or commit of a Hub model; remote code needs a 40-hex commit.
        trust_remote_code: Run code of the model's repository.
        chat: Whether prompts are put into the model's chat format when it has one.

    Raises:
        ModelError: If it cannot be read; says what was looked for.
    """
    if str(model) == builtin.NAME:
        network, tokenizer = builtin.build()
        return Outline(builtin.NAME, None, network.config, tokenizer)
    check_pinned(model, revision, trust_remote_code)
    folder, commit = local_folder(model, revision=revision, weights=False, code=trust_remote_code)
    return read_outline(folder, str(model), commit or revision, trust_remote_code, chat)


def read_outline(folder: Path, name: str, revision: str | None, code: bool, chat: bool) -> Outline:
    """The outline of a model whose files are in a folder; see `outline`."""
    from transformers import AutoConfig, AutoTokenizer

    raw = read_config(folder)
    if is_chatglm(raw):
        own = load_tokenizer(folder, raw)
        form = chat_format(own, raw, name) if chat else None
        return Outline(name, revision, native_config(raw, name), own, form)
    if raw.get("auto_map") and not code and not _native(raw):
        raise ModelError(
            f"{name} needs Python code of its repository, and transformers has no class for its type "
            f"{raw.get('model_type')!r}. If you trust that code, write --trust-remote-code"
            + (f" --revision {revision or '<40 hexadecimal digits of a commit>'}." if revision else ".")
        )
    shared: dict[str, Any] = {"trust_remote_code": code, "local_files_only": True}
    try:
        config: Any = AutoConfig.from_pretrained(folder, **shared)
        _check_kind(name, config, code)
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left", **shared)
    except ModelError:
        raise
    except Exception as error:  # whatever a foreign checkpoint breaks, the caller gets one sentence
        raise cannot_load(name, "its configuration or tokenizer", error) from error
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(
            f"{name} has only a slow tokenizer ({type(tokenizer).__name__}); a fast one is needed "
            "(tokenizer.json). Use a repository that has it."
        )
    _check_tokenizer(name, config, tokenizer)
    return Outline(name, revision, config, tokenizer, _chat(tokenizer) if chat else None, code)


def _check_kind(name: str, config: Any, code: bool) -> None:
    """Refuse by name what is no causal language model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{name} is an encoder-decoder ({config.model_type}); name a causal (decoder-only) model."
        )
    if not code and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(
            f"{name} is of type {config.model_type!r}, of which transformers has no causal language model; "
            "name one that generates text, or a sentence encoder with --encoder."
        )


def _check_tokenizer(name: str, config: Any, tokenizer: Any) -> None:
    """Refuse another model's tokenizer, or an empty one: transformers makes it up where files are missing."""
    unknown = {None, tokenizer.unk_token_id}
    if not set(tokenizer("a user likes items 1 2 3", add_special_tokens=False)["input_ids"]) - unknown:
        raise ModelError(
            f"{name} has a tokenizer that knows no word of plain text; its files are missing or damaged "
            "(tokenizer.json, or what it is made from). Fetch the model again."
        )
    # Added tokens may lie beyond the table (Gemma 3 has one): text never becomes one of them.
    words = config.get_text_config().vocab_size
    largest = max(tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False).values())
    if largest >= words:
        raise ModelError(
            f"{name} has a tokenizer with ids up to {largest}, and a model of {words} tokens: the tokenizer "
            "is another model's. Put the model's own tokenizer files into the folder."
        )


def _chat(tokenizer: Any) -> Chat | None:
    return TemplateChat(tokenizer) if getattr(tokenizer, "chat_template", None) else None


def _native(raw: dict[str, Any]) -> bool:
    from transformers import CONFIG_MAPPING

    return raw.get("model_type") in CONFIG_MAPPING


def _empty_model(config: Any, remote_code: bool) -> Any:
    if is_chatglm(config.to_dict()):
        return ChatGLMForCausalLM(config)
    from transformers import AutoModelForCausalLM

    make: Any = AutoModelForCausalLM.from_config
    return make(config, trust_remote_code=remote_code)


def check_pinned(model: str | Path, revision: str | None, code: bool) -> None:
    """Refuse remote code that is not pinned to a commit."""
    if code and not (Path(model).is_dir() or re.fullmatch(r"[0-9a-f]{40}", revision or "")):
        raise ModelError(
            f"Remote code of {model} at revision {revision!r} could change under you; "
            "pin it: --revision with the 40 hexadecimal digits of a commit."
        )


def cannot_load(name: str, what: str, error: Exception) -> ModelError:
    """The one sentence for whatever a foreign checkpoint breaks."""
    said = f"{type(error).__name__}: {str(error)[:400]}"
    return ModelError(
        f"Cannot load {name!r} as a causal language model: {what}: {said} "
        "Allowed: 'builtin', a folder with config.json, weights and tokenizer, or a Hub id."
    )
