"""The enhanced model as it serves: no hook, no thread-local state, nothing left to learn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.branch import Branch
from msr_enhance.wrap.cache import WeightCache
from msr_enhance.wrap.frozen import FrozenBranch, Weights
from msr_enhance.wrap.fuse import at_output, at_tap
from msr_enhance.wrap.keys import KeySource, find_key
from msr_enhance.wrap.output import Output
from msr_enhance.wrap.recipe import Recipe
from msr_enhance.wrap.tap import Tap, TapCall
from msr_enhance.wrap.who import Whose


class ServingModel(nn.Module):
    """A frozen copy of an enhanced model, made by `EnhancedModel.freeze()`, called exactly like the backbone.

    Every call runs through modules of its own from the backbone down to the tap (shallow copies that share
    all weights), and so it may be called from any number of threads, exported and traced.

    Args:
        backbone: A copy that may be kept.
        recipe: How it was enhanced.
        branches: The trained ones; what serves is copied.
        whose: Finds rows of keys.
        sources: Where keys are.
        cache: Made weights of users.

    Attributes:
        backbone: The copy.
        cache: Made weights of users, None where they are made for every request.
    """

    def __init__(
        self,
        backbone: nn.Module,
        recipe: Recipe,
        branches: Mapping[str, Branch],
        whose: Whose,
        sources: Mapping[str, KeySource],
        cache: WeightCache[Weights] | None,
    ) -> None:
        super().__init__()
        self.backbone, self.recipe, self.cache = backbone, recipe, cache
        self.frozen = nn.ModuleDict({level: FrozenBranch(branch, cache) for level, branch in branches.items()})
        self.whose = whose
        self._sources = dict(sources)
        self._tap, self._output = Tap.parse(recipe.tap), Output.parse(recipe.output)
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> ServingModel:
        """Stay in eval mode: dropout and batch statistics have no place here."""
        return super().train(False)

    def forward(self, *args: Any, rows: Mapping[str, Tensor] | None = None, **kwargs: Any) -> Any:
        """The backbone's output for the same arguments, in the same form, with knowledge fused in.

        Args:
            args: As for the backbone.
            rows: Whose rows they are, by level, instead of looking up keys: table rows `[batch]` int64 as
                `rows_of` gives them (or vectors `[batch, dim]`), or `[1]` for one user's whole request.
            kwargs: As for the backbone.

        Raises:
            EnhanceError: The tap did not fire, or a key is not among the arguments.
            UnknownIdError: An unknown key where that is an error (scenarios).
        """
        branches = {level: cast("FrozenBranch", branch) for level, branch in self.frozen.items()}
        for level in rows or {}:
            if level not in branches:
                raise EnhanceError(not_one_of("level of rows", level, branches))
        who = {
            level: rows[level]
            if rows is not None and level in rows
            else self.whose(level, find_key(source, self.backbone, args, kwargs), branches[level].table)
            for level, source in self._sources.items()
        }
        change = at_tap(self.recipe, branches, who, single=rows is not None)
        call = TapCall(self._tap, self.backbone, change)
        if self._tap.module:
            result = self._around_tap(call)(*args, **kwargs)
        else:
            args, kwargs = call.input(self.backbone, args, kwargs)
            result = self.backbone(*args, **kwargs)
        return at_output(self.recipe, self._output, branches, result, call.seen(), who)

    def rows_of(self, level: str, keys: Any) -> Tensor:
        """Table rows `[batch]` of keys, for `rows`: what an exported model takes."""
        found: Tensor = self.whose(level, keys, cast("FrozenBranch", self.frozen[level]).table)
        return found

    def unknown_counts(self) -> dict[str, int]:
        """Rows so far whose key (or vector) was unknown, by level."""
        counts: dict[str, int] = self.whose.counts()
        return counts

    def _around_tap(self, call: TapCall) -> nn.Module:
        """The backbone, with the tapped module replaced for this call alone."""
        root = last = _shallow(self.backbone)
        *above, name = self._tap.module.split(".")
        for step in above:
            inner = _shallow(last.get_submodule(step))
            last._modules[step] = inner
            last = inner
        tapped = last.get_submodule(name)
        last._modules[name] = _replaced(tapped, call)
        return root


def _shallow(module: nn.Module) -> nn.Module:
    """A module that shares everything with another but the list of its submodules."""
    twin = object.__new__(type(module))
    held = twin.__dict__  # not assigned: a module's own __setattr__ looks at every name
    held.update(module.__dict__)
    held["_modules"] = dict(module._modules)
    return twin


def _replaced(module: nn.Module, call: TapCall) -> nn.Module:
    """A module of the same type and weights whose call goes through the tap."""
    twin = _shallow(module)
    for hooks in ("_forward_hooks", "_forward_pre_hooks"):
        twin.__dict__[hooks] = {}  # they run where the module itself is called, below
    twin.__dict__["forward"] = _tapped(module, call)
    return twin


def _tapped(module: nn.Module, call: TapCall) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        if call.tap.side == "output":
            return call.output(module(*args, **kwargs))
        args, kwargs = call.input(module, args, kwargs)
        return module(*args, **kwargs)

    return forward


def frozen(
    backbone: nn.Module,
    recipe: Recipe,
    branches: Mapping[str, Branch],
    whose: Whose,
    sources: Mapping[str, KeySource],
    cache: int | WeightCache[Weights] | None,
) -> ServingModel:
    """A serving model of an enhanced model's parts, the backbone a copy; see `EnhancedModel.freeze`."""
    kept: WeightCache[Weights] | None = WeightCache(cache) if isinstance(cache, int) else cache
    return ServingModel(backbone, recipe, branches, copy.deepcopy(whose), sources, kept)
