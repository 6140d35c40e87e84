"""The enhanced model as it serves: no hook, no thread-local state, nothing left to learn."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, not_one_of
from msr_enhance.meta.branch import Branch
from msr_enhance.wrap.cache import WeightCache
from msr_enhance.wrap.embedding import described
from msr_enhance.wrap.frozen import FrozenBranch, Weights, plainly
from msr_enhance.wrap.fuse import at_output, at_tap
from msr_enhance.wrap.keys import KeySource, find_key
from msr_enhance.wrap.output import Output
from msr_enhance.wrap.recipe import Recipe
from msr_enhance.wrap.tap import Tap, TapCall
from msr_enhance.wrap.twins import Ways, copied
from msr_enhance.wrap.who import Whose


class ServingModel(nn.Module):
    """A frozen copy of an enhanced model, made by `EnhancedModel.freeze()`, called exactly like the backbone.

    Every call runs through modules of its own from the backbone down to the tap (shallow copies that share
    all weights), and so it may be called from any number of threads, exported and traced. What a module on
    that way sets on itself in `forward` (a counter, the last batch) is gone after the call.

    Its weights are constants. `load_state_dict`, `.to()` and `.half()` change them as a whole, and weights in
    the cache are then made anew; after a write into a single weight they are not.

    Args:
        backbone: A copy that may be kept.
        ways: How its tap is reached.
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
        ways: Ways,
        recipe: Recipe,
        branches: Mapping[str, Branch],
        whose: Whose,
        sources: Mapping[str, KeySource],
        cache: WeightCache[Weights] | None,
    ) -> None:
        super().__init__()
        self.backbone, self.recipe, self.cache = backbone, recipe, cache
        self.frozen = nn.ModuleDict(
            {level: FrozenBranch(branch, cache) for level, branch in branches.items()}
        )
        self.whose, self._ways = whose, ways
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
            rows: Whose rows they are, by level, instead of looking up keys: table rows `[batch]` int as
                `rows_of` gives them, -1 for an unknown key (or vectors `[batch, dim]`), or `[1]` for one
                user's whole request. They are checked like keys. Where nobody can look at them (in an
                exported program, on a GPU) any other number stands for an unknown key, as -1 does.
            kwargs: As for the backbone.

        Raises:
            EnhanceError: The tap did not fire, a key is not among the arguments, or rows are none.
            UnknownIdError: An unknown key where that is an error (scenarios), or a row beyond the table.
        """
        branches = {level: cast("FrozenBranch", branch) for level, branch in self.frozen.items()}
        given = self._given(rows)
        who = {
            level: self.whose.given(level, given[level], branches[level].table)
            if level in given
            else self.whose(level, find_key(source, self.backbone, args, kwargs), branches[level].table)
            for level, source in self._sources.items()
        }
        change = at_tap(self.recipe, branches, who, single=bool(given))

        def checked(flat: Tensor) -> Tensor:
            for level in who.keys() - given.keys() if given else ():
                if who[level].shape[0] != flat.shape[0]:
                    raise EnhanceError(
                        f"{who[level].shape[0]} {level} keys for a batch of {flat.shape[0]} rows; allowed: "
                        "one key a row, or [1] in rows=."
                    )
            return change(flat)

        call = TapCall(self._tap, self.backbone, checked)
        result = self._ways.around(self.backbone, call)(*args, **kwargs)
        if call.flat is None:
            raise EnhanceError(
                f"Tap {self.recipe.tap!r} never fired in the frozen copy: that module was not called, or was "
                "reached not by its registered name (but as a bound method, in a closure or in a list), "
                "where no copy of it can be put. Call it as self.NAME(x), or tap another module."
            )
        return at_output(self.recipe, self._output, branches, result, call.seen(), who)

    def rows_of(self, level: str, keys: Any) -> Tensor:
        """Table rows `[batch]` of keys, for `rows`: what an exported model takes. They are not counted here.

        Raises:
            EnhanceError: A level that the model does not have, or no keys.
            UnknownIdError: An unknown key where that is an error (scenarios).
        """
        if level not in self.frozen:
            raise EnhanceError(not_one_of("level", level, self.frozen))
        table = cast("FrozenBranch", self.frozen[level]).table
        # A copy: torch.export takes equal tensors among its examples for one argument.
        return self.whose.found(level, keys, table).clone()

    def _given(self, rows: object) -> Mapping[str, Any]:
        if rows is None:
            return {}
        if not isinstance(rows, Mapping):
            raise EnhanceError(f"rows is {described(rows)}; allowed: {{level: rows}}.")
        for level in rows:
            if level not in self.frozen:
                raise EnhanceError(not_one_of("level of rows", level, self.frozen))
        return rows

    def unknown_counts(self) -> dict[str, int]:
        """Rows so far whose key (or vector) was unknown, by level; a request of one row in `rows` is one."""
        counts: dict[str, int] = self.whose.counts()
        return counts


@torch.no_grad()
def frozen(
    backbone: nn.Module,
    recipe: Recipe,
    branches: Mapping[str, Branch],
    whose: Whose,
    sources: Mapping[str, KeySource],
    cache: int | WeightCache[Weights] | None,
) -> ServingModel:
    """A serving model of an enhanced model's parts, all of them copied; see `EnhancedModel.freeze`."""
    kept = cache if cache is None or isinstance(cache, WeightCache) else WeightCache[Weights](cache)
    # Constants are made in full precision, and are plain tensors, wherever this is called.
    with torch.inference_mode(False), plainly(branches):
        made, ways = copied(backbone, Tap.parse(recipe.tap))
        return ServingModel(made, ways, recipe, branches, copy.deepcopy(whose), sources, kept)
