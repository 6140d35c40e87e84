"""Where a model's knowledge is from: pinned when the model is saved, compared when it is loaded."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Mapping

from msr_enhance.errors import EnhanceError
from msr_enhance.fingerprint import canonical_json
from msr_enhance.store.derive.share import without_places
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import OF_PROMPTS, flat_fields
from msr_enhance.wrap.knowledge import Knowledge
from msr_enhance.wrap.saved import Pinned

_SHOWN = 3


def pinned(knowledge: Knowledge, dims: Mapping[str, int]) -> Pinned:
    """What identifies some knowledge.

    Of a store: its identity without what the prompts were about (a newer version holds more of it) and
    without folders of this machine.

    Args:
        knowledge: A store, or vectors in memory.
        dims: Numbers of a vector, by placed level.
    """
    if not isinstance(knowledge, KnowledgeStore):
        return Pinned(kind="memory", dims=dict(dims))
    identity = without_places(knowledge.provenance).identity
    return Pinned(
        kind="store",
        identity={name: value for name, value in identity.items() if name not in OF_PROMPTS},
        dims=dict(dims),
        fingerprint=knowledge.fingerprint,
        version=knowledge.version,
        commit=knowledge.commit,
    )


def check_origin(saved: Pinned, knowledge: Knowledge, strict: bool) -> Pinned:
    """Refuse knowledge of another identity than the model was trained with.

    Args:
        saved: What the model was trained with.
        knowledge: What it is given.
        strict: Else the difference is a warning, unless vectors have another width.

    Returns:
        What it is given, pinned.

    Raises:
        EnhanceError: It is another; names the fields, what they are and what they were.
    """
    given = pinned(knowledge, saved.dims)
    for level, dim in saved.dims.items():
        if isinstance(knowledge, KnowledgeStore) and level in knowledge.levels:
            shape = knowledge.shape(level)
            if math.prod(shape) != dim:
                raise EnhanceError(
                    f"The {level} vectors have {math.prod(shape)} numbers, and the model was trained on "
                    f"{dim}; allowed: vectors of the same language model and state."
                )
    other = list(_differences(saved, given))
    if other:
        more = f" ({len(other) - _SHOWN} more fields differ)" if len(other) > _SHOWN else ""
        said = (
            f"This knowledge is not what the model was trained with: {'; '.join(other[:_SHOWN])}{more}. "
            "Allowed: the same store or a newer version of it."
        )
        if strict:
            raise EnhanceError(f"{said} Write strict=False where the vectors are the same all the same.")
        warnings.warn(said, UserWarning, stacklevel=4)
    return given


def _differences(saved: Pinned, given: Pinned) -> Iterator[str]:
    if saved.kind != given.kind:
        words = {"store": "a store", "memory": "vectors in memory, which have no identity"}
        yield f"it is {words[given.kind]}, allowed: {words[saved.kind]}"
        return
    old = dict(flat_fields(json.loads(canonical_json(saved.identity))))
    new = dict(flat_fields(json.loads(canonical_json(given.identity))))
    for field in sorted(old.keys() | new.keys()):
        if old.get(field) != new.get(field):
            seen, allowed = (_shown(one.get(field, "(absent)")) for one in (new, old))
            yield f"{field} is {seen}, allowed: {allowed}"


def _shown(said: str) -> str:
    return said if len(said) <= 120 else f"{said[:117]}..."
