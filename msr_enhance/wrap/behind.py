"""What is behind a row's generated layers: whose they are, whether there was a vector, what was answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.fingerprint import canonical_json
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap.index import KeyIndex
from msr_enhance.wrap.model import EnhancedModel
from msr_enhance.wrap.origin import pinned


def check_answers(model: EnhancedModel, store: object) -> None:
    """Refuse a store whose answers are not what the model's vectors are of.

    Raises:
        EnhanceError: It is no store, or of another language model or other prompts.
    """
    if not isinstance(store, KnowledgeStore):
        raise EnhanceError(
            f"store is {type(store).__name__}; allowed: a KnowledgeStore. Write KnowledgeStore.load(FOLDER)."
        )
    origin = model.origin
    if origin.kind == "store":
        one, other = (_of_answers(each.identity) for each in (origin, pinned(store, origin.dims)))
        if one != other:
            raise EnhanceError(
                f"The store at {store.path} is not the one that this model's knowledge is from: its answers "
                "are of another language model or other prompts. "
                f"The model's: {one[:200]}; this one's: {other[:200]}."
            )


def _of_answers(identity: Mapping[str, Any]) -> str:
    """What answers depend on: a transform changes vectors alone."""
    return str(canonical_json({name: value for name, value in identity.items() if name != "transforms"}))


def key_of(model: EnhancedModel, level: str, found: Any, who: Tensor, row: int) -> int | str | None:
    """The id of one row of a call; a position of a vocabulary stands for the id there.

    Args:
        model: The model.
        level: ``user`` or ``scenario``.
        found: The keys as the call holds them.
        who: Table rows `[batch]`, or vectors.
        row: The row.
    """
    if level in model.recipe.vectors:
        return None
    index = cast("KeyIndex", model.whose.index[level])
    place = int(who[row])
    if place >= 0:
        named: int | str | None = next((name for name, at in index.names.items() if at == place), None)
        return named
    value = found[row]
    value = value.item() if hasattr(value, "item") else value
    nobody = index.positions and isinstance(value, int)
    return None if nobody or not isinstance(value, (int, str)) else value


def is_known(model: EnhancedModel, level: str, who: Tensor, row: int) -> bool:
    """Whether a row has a vector."""
    if level in model.recipe.vectors:
        return bool(who[row].any())
    absent = model.branches[level].table.absent
    return not bool(absent[int(who[row])])


def answer_about(store: KnowledgeStore | None, level: str, key: int | str | None) -> str | None:
    """The stored answer; None without one.

    Raises:
        StoreError: The store was saved without texts.
    """
    if store is None or key is None or level not in store.levels:
        return None
    try:
        return store.text(level, key) or None
    except UnknownIdError:
        return None
