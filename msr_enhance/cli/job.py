"""ExtractJob: every option of `extract` as one value that a worker process can be handed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from msr_enhance.cli.read_log import number
from msr_enhance.data.columns import Columns
from msr_enhance.data.split import Split, split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import ModelError, PromptError, StoreError, not_one_of
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.fingerprint import fingerprint
from msr_enhance.llm import builtin, category_frequency
from msr_enhance.llm.protocol import FrozenLLM
from msr_enhance.prompts.platform import Platform
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.templates import Templates
from msr_enhance.prompts.user import UserPrompt
from msr_enhance.store.numbers import DTYPES, Dtype


class ExtractJob(BaseModel):
    """What to read, with which prompts, by which reader, and into which folder.

    A job loads nothing until one of its methods is called, and prints nothing.

    Attributes:
        data: Interaction log.
        out: Folder of the store.
        items: Item table to join, or None.
        column: ``ROLE=NAME`` pairs.
        platform: YAML file of the platform, or None.
        template: ``default``, ``paper``, or a folder.
        history: Most recent positives shown per scenario.
        split: How the log is divided; None for what suits it.
        protocol: ``window`` or ``paper``.
        cutoff: First time that no prompt may see, as it was typed.
        limit: Only the first so many users.
        model: ``builtin``, ``category-frequency``, a folder or a Hub id.
        encoder: Name or folder of a sentence encoder that is read instead of `model`.
        server: Address of a server that reads `model`, instead of this process.
        served_as: How the server names the model, where that differs.
        max_new_tokens: Longest answer in tokens.
        state: Which state is kept.
        layers: Layers whose states are kept together; None for the last one.
        before_norm: Keep states before the final norm.
        store_dtype: How vectors are kept; None for what the store has.
        chat: Put prompts into the model's chat format when it has one.
        max_prompt_tokens: Longest prompt in tokens, below what the model takes.
        tokens_per_batch: Tokens read together; None lets the reader choose.
        revision: Commit, tag or branch of a Hub model.
        dtype: Number format of the weights; None for what suits the device.
        device: Where the model runs; None for a GPU when there is one.
        trust_remote_code: Run code of the model's repository.
        refresh: Read users again whose prompt has changed.
        retry_failed: Read users again whose answer failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    out: Path
    items: Path | None = None
    column: tuple[str, ...] = ()
    platform: Path | None = None
    template: str = "default"
    history: int = 50
    split: str | None = None
    protocol: str = "window"
    cutoff: str | None = None
    limit: int | None = None
    model: str = builtin.NAME
    encoder: str | None = None
    server: str | None = None
    served_as: str | None = None
    max_new_tokens: int = 256
    state: str = "last"
    layers: tuple[int, ...] | None = None
    before_norm: bool = False
    store_dtype: Dtype | None = None
    chat: bool = True
    max_prompt_tokens: int | None = None
    tokens_per_batch: int | None = None
    revision: str | None = None
    dtype: str | None = None
    device: str | None = None
    trust_remote_code: bool = False
    refresh: bool = False
    retry_failed: bool = False

    def check(self) -> None:
        """Refuse what can be known to be wrong before a log or a model is read.

        Raises:
            ModelError: If no reader has this state, or the options name two readers.
        """
        if self.encoder is not None and self.server is not None:
            raise ModelError("--encoder and --server were both given; write the one that reads the prompts.")
        if self.encoder is not None or self.model == category_frequency.NAME:
            return
        if self.server is not None:
            from msr_enhance.llm.http import STATES
        else:
            from msr_enhance.llm.huggingface import STATES
        if self.state not in STATES:
            raise ModelError(not_one_of("state", self.state, STATES, "Write --state last."))

    def key(self) -> str:
        """Names what the job makes: its options, and size and time of the files it reads.

        A part that was finished under another key is gone through again; so the key may change too
        often, never too seldom.
        """
        speed = {"out", "tokens_per_batch", "device"}
        named = [self.data, self.items, self.platform, Path(self.template), Path(self.model)]
        files = [[str(name), list(_stamps(name))] for name in named if name is not None]
        if self.encoder is not None:
            files.append([self.encoder, list(_stamps(Path(self.encoder)))])
        return fingerprint({"options": self.model_dump(mode="json", exclude=speed), "files": files})

    def table(self) -> InteractionTable:
        """The log, checked."""
        return InteractionTable.read(self.data, Columns.from_options(list(self.column)), items=self.items)

    def divide(self, table: InteractionTable) -> Split:
        """What prompts may see."""
        cutoff = number(self.cutoff)
        return split_table(table, kind=self.split, protocol=self.protocol, cutoff=cutoff)  # type: ignore[arg-type]

    def templates(self) -> Templates:
        """Templates by name, or from a folder with scenario.yaml and user.yaml (either may be missing)."""
        folder = Path(self.template)
        if not folder.is_dir():
            if self.template not in UserPrompt.texts:
                hint = "Or a folder with user.yaml and scenario.yaml."
                raise PromptError(not_one_of("template", self.template, UserPrompt.texts, hint))
            return Templates.named(self.template)
        files = {name: folder / f"{name}.yaml" for name in ("scenario", "user")}
        if not any(file.is_file() for file in files.values()):
            raise PromptError(
                f"{folder} holds neither scenario.yaml nor user.yaml; write at least one of them."
            )
        base = Templates()
        return Templates(
            ScenarioPrompt.from_yaml(files["scenario"]) if files["scenario"].is_file() else base.scenario,
            UserPrompt.from_yaml(files["user"]) if files["user"].is_file() else base.user,
        )

    def notes(self) -> Platform | None:
        """What the platform file says."""
        return None if self.platform is None else Platform.from_yaml(self.platform)

    def reader(self, table: InteractionTable) -> FrozenLLM:
        """The source of vectors, loaded.

        Raises:
            ModelError: If it cannot be loaded; says what was looked for.
        """
        self.check()
        if self.encoder is not None:
            from msr_enhance.llm.sentence_encoder import SentenceEncoder

            return SentenceEncoder(self.encoder, revision=self.revision, device=self.device)
        if self.model == category_frequency.NAME:
            return category_frequency.CategoryFrequency(table.categories, table.scenarios)
        shared: dict[str, Any] = {
            "revision": self.revision,
            "max_new_tokens": self.max_new_tokens,
            "state": self.state,
            "max_prompt_tokens": self.max_prompt_tokens,
            "chat": self.chat,
        }
        if self.server is not None:
            from msr_enhance.llm.http import HttpLLM

            return HttpLLM(self.server, model=self.model, served_as=self.served_as, **shared)
        from msr_enhance.llm.huggingface import HuggingFaceLLM

        return HuggingFaceLLM.load(
            self.model,
            **shared,
            dtype=self.dtype,
            device=self.device,
            trust_remote_code=self.trust_remote_code,
            layers=self.layers,
            before_norm=self.before_norm,
            tokens_per_batch=self.tokens_per_batch,
        )

    def extractor(self, reader: FrozenLLM) -> KnowledgeExtractor:
        """What asks the reader."""
        return KnowledgeExtractor(
            reader,
            self.templates(),
            platform=self.notes(),
            history=self.history,
            store_dtype=self.store_dtype,
        )


def as_dtype(text: str | None) -> Dtype | None:
    """How vectors are kept, as it is typed.

    Raises:
        StoreError: If it is no such type.
    """
    if text is not None and text not in DTYPES:
        raise StoreError(not_one_of("--store-dtype", text, DTYPES))
    return text


def layer_numbers(text: str | None) -> tuple[int, ...] | None:
    """Layers as they are typed: ``7,14,28``; -1 is the last one.

    Raises:
        ModelError: If they are not whole numbers by comma.
    """
    try:
        return None if text is None else tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise ModelError(f"--layers is {text!r}; write whole numbers by comma: --layers 7,14,28.") from error


def _stamps(path: Path) -> Iterator[list[Any]]:
    """Size and time of a file, or of the files of a folder; nothing for a name that is neither."""
    try:
        for file in sorted(path.iterdir()) if path.is_dir() else [path] * path.is_file():
            facts = file.stat()
            yield [file.name, facts.st_size, facts.st_mtime_ns]
    except OSError:
        return
