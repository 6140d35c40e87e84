"""Saving an enhanced model and getting it back: a folder or a model repository of the Hub, without pickle."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self, cast

import torch
from torch import Tensor, nn

from msr_enhance.atomic import write_bytes_new
from msr_enhance.meta.branch import Branch
from msr_enhance.store.hub.upload import Pushed, push_files
from msr_enhance.wrap import card
from msr_enhance.wrap.build import assemble
from msr_enhance.wrap.index import KeyIndex
from msr_enhance.wrap.keys import KeySource
from msr_enhance.wrap.knowledge import Ids, Knowledge
from msr_enhance.wrap.origin import check_origin
from msr_enhance.wrap.recipe import Recipe
from msr_enhance.wrap.repository import located, refuse_other_work
from msr_enhance.wrap.restore import (
    check_backbone,
    check_meta,
    ids_for,
    sources_of,
    statistics_of,
    with_vector_levels,
)
from msr_enhance.wrap.saved import (
    CONFIG,
    WEIGHTS,
    Backbone,
    Pinned,
    Saved,
    Vocabulary,
    Weights,
    vocabulary_of,
)
from msr_enhance.wrap.saved_folder import read_saved, replacing
from msr_enhance.wrap.state import aliases_of, check_statistics, dtype_of, state_of
from msr_enhance.wrap.tap import Tap, leave
from msr_enhance.wrap.tensors import write_tensors
from msr_enhance.wrap.who import Whose

_OURS: Final = re.compile(rf"{re.escape(CONFIG)}|{re.escape(WEIGHTS)}")


class Pretrained(nn.Module):
    """What an `EnhancedModel` can do with folders and with the Hub."""

    backbone: nn.Module
    meta: nn.ModuleDict
    whose: Whose
    recipe: Recipe
    origin: Pinned

    def save_pretrained(self, folder: str | Path, *, backbone: bool = True) -> None:
        """Write ``config.json`` and ``model.safetensors``, without pickle.

        `from_pretrained` needs these, the backbone's code, the knowledge and the users' vocabulary. The whole
        folder appears at once or stays as it was. No user id is in it, and no knowledge vector, but for
        levels in `learned`: their vectors are trained weights and are saved. They start at the (centred,
        turned) vectors of the knowledge and may still be near them.

        Args:
            folder: A new or empty folder, or an earlier save, which is replaced; modes stay as they were.
            backbone: Whether the backbone's weights are saved too; it was trained along.

        Raises:
            EnhanceError: The folder holds something else, the disk refuses, or a state is no plain tensor.
        """
        with replacing(Path(folder)) as new:
            self._save(new, backbone)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        backbone: nn.Module,
        knowledge: Knowledge,
        *,
        vocabulary: Mapping[str, Ids] | None = None,
        keys: Mapping[str, KeySource] | None = None,
        vectors: Mapping[str, KeySource] | None = None,
        revision: str | None = None,
        token: str | None = None,
        strict: bool = True,
    ) -> Self:
        """An enhanced model as it was saved, around a backbone that you bring.

        Everything is checked before the backbone is changed: a refused load leaves it as it was, unless its
        own `load_state_dict` (or a hook of it) raises half way. Its own weights stay where none were saved.

        Args:
            name: A folder, or ``owner/name`` or ``owner/name@revision`` of the Hub (a `Path`, or a text that
                looks like one, is always a folder).
            backbone: A module of the saved class, in the type it was saved in.
            knowledge: The store that the model was trained with, or a newer version; or vectors in memory.
            vocabulary: `{level: ids}` where keys are positions: the ids of training, in order, with new ones
                behind them. Scenarios need none: their names were saved.
            keys: Where keys are, for levels where a function found them; for others, instead of the saved.
            vectors: The same for vectors that come with the batch.
            revision: Branch, tag or commit of the repository.
            token: Token of the Hub, instead of the one of ``hf auth login``.
            strict: Refuse knowledge of another identity; else that is a warning.

        Returns:
            The model, on the backbone's device, in the backbone's mode (train or eval).

        Raises:
            EnhanceError: Anything is not as it was saved; says what was seen and what is allowed.
            UnknownIdError: The knowledge lacks a scenario.
            StoreIOError: The Hub cannot be reached.
        """
        folder = located(name, revision, token)
        saved, file, tensors = read_saved(folder)
        recipe, sources = sources_of(saved.recipe, keys, vectors)
        tap = Tap.parse(recipe.tap)
        tapped = tap.find(backbone)
        knowledge = with_vector_levels(recipe, knowledge)
        check_origin(saved.knowledge, knowledge, strict)
        ids = ids_for(saved, knowledge, vocabulary or {})
        statistics = statistics_of(saved, file, tensors)
        check_meta(recipe, saved, file, statistics)
        held = check_backbone(saved, file, backbone)
        parts = assemble(recipe, knowledge, vocabulary=ids, statistics=statistics)
        tapped_before = _hooks(tapped)
        model = cls(backbone, parts, sources)
        try:
            model._fill(tensors, {name: tensors[first] for name, first in held.items()})
        except BaseException:
            if _hooks(tapped) != tapped_before:
                leave(tap, tapped, model)
            raise
        for part in (model.meta, model.whose):
            part.train(backbone.training)
        model.training = backbone.training
        return model

    def push_to_hub(
        self,
        repo: str,
        *,
        private: bool = True,
        license: str = "other",
        backbone: bool = True,
        revision: str | None = None,
        token: str | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Pushed:
        """Put the model into a model repository of the Hub with a card, in one commit; see `save_pretrained`.

        Args:
            repo: ``owner/name``; it is made where it is not there.
            private: False allows a repository that everybody can read.
            license: The licence that the card names.
            backbone: As for `save_pretrained`.
            revision: Branch, which must be there; the default branch where it is missing.
            token: Token of the Hub, instead of the one of ``hf auth login``.
            say: Is told what happens.

        Returns:
            The commit, and what was sent.

        Raises:
            EnhanceError: As `save_pretrained`; or the repository holds another model.
            StoreError: The repository is public and that was not allowed, somebody else pushed meanwhile, or
                the Hub refuses.
            StoreIOError: The Hub cannot be reached; the same call goes on.
        """
        with tempfile.TemporaryDirectory(prefix="msr-enhance-push-") as made:
            folder = Path(made)
            saved, tensors = self._save(folder, backbone)
            counts = {name: tensor.numel() for name, tensor in tensors.items()}
            write_bytes_new(folder, card.NAME, card.card(repo, saved, counts, license).encode())
            refuse_other_work(repo, revision, token)
            return push_files(
                repo,
                folder,
                (CONFIG, WEIGHTS, card.NAME),
                message=f"Enhanced model, {saved.weights.bytes:,} bytes",
                ours=_OURS,
                private=private,
                public_allowed=not private,
                token=token,
                revision=revision,
                say=say,
                kind="model",
            )

    def _save(self, folder: Path, backbone: bool) -> tuple[Saved, dict[str, Tensor]]:
        """Write both files into a new folder; what they say and hold."""
        tensors = state_of(self.meta, "meta.")
        for level, branch in _branches(self.meta).items():
            dtype_of(branch)
            check_statistics(level, branch)
        aliases: dict[str, str] = {}
        if backbone:
            state = state_of(self.backbone, "backbone.")
            aliases = aliases_of(state)
            tensors |= {name: tensor for name, tensor in state.items() if name not in aliases}
        vocabularies = self._vocabularies()
        kind = type(self.backbone)
        digest, size = write_tensors(folder, WEIGHTS, tensors)
        saved = Saved(
            recipe=self.recipe,
            backbone=Backbone(name=f"{kind.__module__}.{kind.__qualname__}"[:500], weights=backbone),
            knowledge=self.origin,
            vocabularies=vocabularies,
            weights=Weights(bytes=size, sha256=digest, aliases=aliases),
        )
        write_bytes_new(folder, CONFIG, saved.to_bytes())
        return saved, tensors

    def _vocabularies(self) -> dict[str, Vocabulary]:
        """Of each level whose weights depend on the order of its ids."""
        found = {}
        for level, index in self.whose.index.items():
            if level in self.recipe.positions or level in self.recipe.learned:
                ids = cast("KeyIndex", index)
                found[level] = vocabulary_of(level, ids.names, ids.size)
        return found

    @torch.no_grad()
    def _fill(self, meta: Mapping[str, Tensor], backbone: Mapping[str, Tensor]) -> None:
        """Take the numbers of a save, which are known to fit."""
        for level, branch in _branches(self.meta).items():
            branch.to(meta[f"meta.{level}.layers.0.weight"].dtype)
            for name, target in branch.state_dict(prefix=f"meta.{level}.").items():
                target.copy_(meta[name])
        if backbone:
            self.backbone.load_state_dict(
                {name.removeprefix("backbone."): tensor for name, tensor in backbone.items()}
            )


def _branches(meta: nn.ModuleDict) -> dict[str, Branch]:
    return cast("dict[str, Branch]", dict(meta.items()))


def _hooks(module: nn.Module) -> tuple[int, int]:
    return len(module._forward_hooks), len(module._forward_pre_hooks)
