"""The enhanced model: the user's backbone, untouched, with generated layers around it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from msr_enhance.errors import EnhanceError
from msr_enhance.meta.branch import Branch
from msr_enhance.wrap.build import Parts, refreshed
from msr_enhance.wrap.cache import WeightCache
from msr_enhance.wrap.frozen import Weights
from msr_enhance.wrap.fuse import at_output, at_tap
from msr_enhance.wrap.keys import KeySource, find_key
from msr_enhance.wrap.knowledge import Ids, Knowledge
from msr_enhance.wrap.output import Output
from msr_enhance.wrap.pretrained import Pretrained
from msr_enhance.wrap.serving import ServingModel, frozen
from msr_enhance.wrap.tap import Tap, TapCall, leave, listen
from msr_enhance.wrap.who import Whose

_disabled = threading.local()


class EnhancedModel(Pretrained, nn.Module):
    """A backbone with generated layers; made by `enhance()`, called exactly like the backbone.

    What it does not have itself is looked up in the backbone: attributes and methods fall through.

    Attributes:
        backbone: The module that was given, with its own state_dict keys.
        meta: The branches, by level.
        whose: Finds rows of keys.
        recipe: How it was enhanced.
        origin: Where its knowledge is from: identity, version and fingerprint of the store.
    """

    def __init__(self, backbone: nn.Module, parts: Parts, sources: Mapping[str, KeySource]) -> None:
        super().__init__()
        device = next((weight.device for weight in backbone.parameters()), torch.device("cpu"))
        self.backbone = backbone
        self.meta = nn.ModuleDict(parts.branches).to(device)
        self.whose = Whose(parts.recipe, parts.indexes).to(device)
        self.recipe, self.origin = parts.recipe, parts.origin
        self._sources = {level: sources[level] for level in parts.branches}
        self._tap, self._output = Tap.parse(parts.recipe.tap), Output.parse(parts.recipe.output)
        listen(self._tap, self._tap.find(backbone), self)
        # Read by DistributedDataParallel, which would else send the knowledge to every process at every step.
        ours = [name for name, _ in self.named_buffers() if not name.startswith("backbone.")]
        theirs = [f"backbone.{name}" for name in getattr(backbone, "_ddp_params_and_buffers_to_ignore", ())]
        self._ddp_params_and_buffers_to_ignore = ours + theirs

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "backbone" or "_modules" not in self.__dict__:  # while it is copied or not yet built
                raise
            return getattr(self.backbone, name)

    def extra_repr(self) -> str:
        """Tap, keys and places."""
        recipe = self.recipe
        places = ", ".join(
            f"{level} {place} by {self._sources[level]!r}" for level, place in recipe.placement.items()
        )
        return f"tap={recipe.tap!r} [batch, {recipe.width}], {places}, output={'+'.join(recipe.output)}"

    @property
    def branches(self) -> dict[str, Branch]:
        """The branches of `meta`, typed."""
        return cast("dict[str, Branch]", dict(self.meta.items()))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The backbone's output for the same arguments, in the same form, with knowledge fused in.

        Raises:
            EnhanceError: The tap did not fire, or a key is not among the arguments.
            UnknownIdError: An unknown key where that is an error (scenarios).
        """
        disabled = getattr(_disabled, "models", ())
        if disabled and id(self) in disabled:
            return self.backbone(*args, **kwargs)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            raise EnhanceError(
                "An enhanced model is not exported as it is: its tap is a hook, and its knowledge is looked "
                "up. Export model.freeze() instead."
            )
        branches = self.branches
        who = {
            level: self.whose(
                level, find_key(self._sources[level], self.backbone, args, kwargs), branch.table
            )
            for level, branch in branches.items()
        }
        module = self.backbone.get_submodule(self._tap.module)
        if not torch.compiler.is_compiling():
            listen(self._tap, module, self)  # another wrapper's unwrap() may have taken the hook
        with TapCall(self._tap, module, at_tap(self.recipe, branches, who)) as call:
            result = self.backbone(*args, **kwargs)
        return at_output(self.recipe, self._output, branches, result, call.seen(), who)

    @contextmanager
    def disabled(self) -> Iterator[EnhancedModel]:
        """The plain backbone's output, for the time of the block, in this thread."""
        before = getattr(_disabled, "models", ())
        _disabled.models = (*before, id(self))
        try:
            yield self
        finally:
            _disabled.models = before

    def freeze(self, cache: int | WeightCache[Weights] | None = None) -> ServingModel:
        """A copy to serve and to export: scenario layers are constants, users' are made per request.

        It is called like the backbone, holds no hook, and knows nothing of later training.

        Args:
            cache: So many users' made weights are kept for their next request; or a cache that several
                frozen models share. Worth it for sessions; not for batches of many users, whose weights would
                have to be read from memory. It works on the CPU; a model on a GPU makes them anew.

        Returns:
            A module in eval mode, without gradients.

        Raises:
            EnhanceError: A cache that is none, or a backbone that cannot be copied.
        """
        return frozen(self.backbone, self.recipe, self.branches, self.whose, self._sources, cache)

    def unwrap(self) -> nn.Module:
        """The backbone as it was given (with the weights it has learned since), without our hook."""
        leave(self._tap, self._tap.find(self.backbone), self)
        return self.backbone

    def refresh(self, knowledge: Knowledge, vocabulary: Mapping[str, Ids] | None = None) -> None:
        """Take newer knowledge: users and scenarios that were not there, vectors that were made again.

        The layers stay as they were learned, and read the new vectors through the statistics of the old. A
        new scenario works from its vector alone: by what its prompt has in common with those trained on.

        Args:
            knowledge: Vectors of the same language model and prompts.
            vocabulary: For levels whose keys are positions, the id at each of them now.

        Raises:
            EnhanceError: Vectors of another width, levels with trained vectors, or a vocabulary is missing.
            UnknownIdError: An unknown scenario.
        """
        made = refreshed(self.recipe, self.branches, knowledge, vocabulary or {})
        tables, indexes, self.origin = made  # all of it can be used: nothing is half done
        for level, table in tables.items():
            self.branches[level].table = table
        self.whose.index.update(indexes)

    def unknown_counts(self) -> dict[str, int]:
        """Rows so far whose key (or vector) was unknown, by level."""
        counts: dict[str, int] = self.whose.counts()
        return counts

    def alphas(self) -> dict[str, float | list[float]]:
        """The mixing weight of each parallel branch, by level; one a task where there are several."""
        found = {level: branch.alpha for level, branch in self.branches.items() if branch.alpha is not None}
        return {level: alpha.tolist() if len(alpha) > 1 else alpha.item() for level, alpha in found.items()}

    def parameter_groups(
        self, lr: float | None = None, meta_factor: float = 0.3, weight_decay: float | None = None
    ) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: ``backbone``, ``meta`` (generated layers) and ``alpha``.

        Args:
            lr: Learning rate of the backbone; the optimizer's own for all groups where it is missing.
            meta_factor: The generated layers learn at `lr * meta_factor` (0.3 to 1 measured best).
            weight_decay: Of backbone and generated layers, the optimizer's own where it is missing; alpha
                has none, which would pull it to 0.
        """
        # Those of an enhanced model inside this one, too.
        branches = [part for part in self.modules() if isinstance(part, Branch)]
        alphas = [branch.alpha for branch in branches if branch.alpha is not None]
        taken = {id(alpha) for alpha in alphas}
        layers = [weight for branch in branches for weight in branch.parameters() if id(weight) not in taken]
        taken |= {id(weight) for weight in layers}
        others = [weight for weight in self.backbone.parameters() if id(weight) not in taken]
        decay = {} if weight_decay is None else {"weight_decay": weight_decay}
        rate = {} if lr is None else {"lr": lr}
        slower = {} if lr is None else {"lr": lr * meta_factor}
        groups: list[dict[str, Any]] = [
            {"name": "backbone", "params": others, **rate, **decay},
            {"name": "meta", "params": layers, **slower, **decay},
            {"name": "alpha", "params": alphas, **rate, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]

    def print_trainable_parameters(self) -> None:
        """Say on stdout how many numbers train in the backbone and in the generated layers."""
        rows = []
        for group in self.parameter_groups():
            count = sum(weight.numel() for weight in group["params"] if weight.requires_grad)
            rows.append((group["name"], count))
        total = sum(count for _, count in rows)
        said = ", ".join(f"{name} {count:,} ({count / max(total, 1):.1%})" for name, count in rows)
        sys.stdout.write(f"trainable parameters: {total:,}; {said}\n")
