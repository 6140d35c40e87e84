"""What a saved model says of itself: `config.json`, format 1.0, written in one spelling and read strictly."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from msr_enhance.errors import EnhanceError
from msr_enhance.fingerprint import canonical_json, fingerprint, parse_canonical_json
from msr_enhance.wrap.output import Output
from msr_enhance.wrap.recipe import LEVELS, Recipe
from msr_enhance.wrap.tap import Tap

FORMAT: Final = "msr-enhance-model"
FORMAT_VERSION: Final = "1.0"
CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"
_DIGEST: Final = "sha256"
CONFIG_BYTES: Final = 1 << 20
FEW_NAMES: Final = 1000
"""So many scenario names are kept; of more, and of users, only the digest."""

_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Vocabulary(_Part):
    """Ids whose order the weights depend on.

    Attributes:
        ids: How many.
        sha256: See `digest_of`.
        names: The ids themselves, for scenarios; never for users.
    """

    ids: Annotated[int, Field(gt=0, lt=2**63)]
    sha256: _Sha256
    names: tuple[str | int, ...] | None = None


class Pinned(_Part):
    """Which knowledge the model was trained with.

    Attributes:
        kind: A ``store``, or vectors in ``memory``, which have no identity but their width.
        identity: What changes a vector: language model, prompt templates, state, transforms. Not what the
            prompts were about, which newer knowledge may have more of.
        dims: Numbers of a vector, by level.
        fingerprint: Of the store's manifest.
        version: Of the store.
        commit: Of the Hub that the store was read at.
    """

    kind: Literal["store", "memory"]
    identity: dict[str, Any] = Field(default_factory=dict)
    dims: dict[str, Annotated[int, Field(gt=0, lt=2**31)]]
    fingerprint: _Sha256 | None = None
    version: Annotated[int, Field(gt=0, lt=2**63)] | None = None
    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")] | None = None


class Backbone(_Part):
    """The module that was enhanced.

    Attributes:
        name: Its class; only to be read.
        weights: Whether its weights are in the file.
    """

    name: Annotated[str, StringConstraints(max_length=500)]
    weights: bool


class Weights(_Part):
    """The file of tensors.

    Attributes:
        bytes: Its size.
        sha256: Its digest.
        aliases: Names of tensors that are another tensor of the file.
    """

    bytes: _Count
    sha256: _Sha256
    aliases: dict[str, str] = Field(default_factory=dict)


class Saved(_Part):
    """Everything about a saved model but the numbers.

    Attributes:
        format: Always ``msr-enhance-model``.
        format_version: Version of both files.
        library_version: Of msr-enhance that wrote it; only to be read.
        recipe: How the backbone was enhanced.
        backbone: What was enhanced.
        knowledge: With what.
        vocabularies: By level.
        weights: The file of tensors.

    On disk a field ``sha256`` stands beside them: the digest of the canonical JSON of all others.
    """

    format: Literal["msr-enhance-model"] = FORMAT
    format_version: Literal["1.0"] = FORMAT_VERSION
    library_version: Annotated[str, StringConstraints(max_length=100)] = Field(
        default_factory=lambda: importlib.metadata.version("msr-enhance")
    )
    recipe: Recipe
    backbone: Backbone
    knowledge: Pinned
    vocabularies: dict[str, Vocabulary]
    weights: Weights

    def to_bytes(self) -> bytes:
        """As it stands on disk.

        Raises:
            EnhanceError: It holds what JSON cannot say (NaN), or is too large.
        """
        try:
            content = self.model_dump(mode="json")
            data = canonical_json(content | {_DIGEST: fingerprint(content)})
        except ValueError as error:
            raise EnhanceError(
                f"{CONFIG} cannot be written: {error}; allowed: finite numbers, text."
            ) from error
        if len(data) > CONFIG_BYTES:
            raise EnhanceError(
                f"{CONFIG} would have {len(data):,} bytes; allowed: {CONFIG_BYTES:,}. Write shorter names."
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> Self:
        """Read it, strictly.

        Args:
            data: What stands on disk.
            path: Where, for messages.

        Raises:
            EnhanceError: It is of another format or version, was changed, or does not fit together.
        """
        content = _content(data, path)
        if content is None:
            raise EnhanceError(
                f"{path} is no config of an enhanced model; allowed: what save_pretrained() or push_to_hub() "
                "wrote. Name the folder or repository that holds it."
            )
        version = content.get("format_version")
        if version != FORMAT_VERSION:
            raise EnhanceError(
                f"{path} has format version {str(version)[:40]!r}; this library reads {FORMAT_VERSION!r}. "
                "Write: pip install --upgrade msr-enhance; or save the model again with this version."
            )
        try:
            parse_canonical_json(data)
            promised = content.pop(_DIGEST, None)
            if promised != (seen := fingerprint(content)):
                raise ValueError(f"its own SHA-256 is {seen[:16]}…, it promises {str(promised)[:16]}…")
            saved = cls.model_validate_json(canonical_json(content), strict=True)
            _check(saved)
        except (ValidationError, ValueError) as error:
            raise EnhanceError(
                f"{path} is not as it was written: {_told(error)}. Save the model again, or fetch it again."
            ) from error
        return saved


def is_ours(data: bytes, path: Path) -> bool:
    """Whether the bytes of a config are of this format, in whatever version."""
    return _content(data, path) is not None


def digest_of(names: Mapping[Any, int], rows: int) -> str:
    """SHA-256 of which id stands at which of the first rows: lines ``row TAB id-as-JSON``, in order.

    Raises:
        EnhanceError: An id is no integer and no text.
    """
    digest = hashlib.sha256()
    for name, row in sorted(names.items(), key=lambda pair: pair[1]):
        if row >= rows:
            break
        if not isinstance(name, (int, str)):
            raise EnhanceError(f"id {name!r:.60} is {type(name).__name__}; allowed: integers and strings.")
        digest.update(f"{row}\t{json.dumps(name)}\n".encode())
    return digest.hexdigest()


def vocabulary_of(level: str, names: Mapping[Any, int], rows: int) -> Vocabulary:
    """What is saved of a level's ids; `names` are their rows."""
    ordered = sorted(names, key=lambda name: names[name])
    shown = level == "scenario" and rows <= FEW_NAMES and len(ordered) == rows
    return Vocabulary(ids=rows, sha256=digest_of(names, rows), names=tuple(ordered) if shown else None)


def _content(data: bytes, path: Path) -> dict[str, Any] | None:
    if len(data) > CONFIG_BYTES:
        return None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EnhanceError(
            f"{path} is not as it was written: no JSON ({str(error)[:80]}). Save the model again, or fetch "
            "it again."
        ) from error
    ours = isinstance(content, dict) and content.get("format") == FORMAT
    return content if ours else None


def _check(saved: Saved) -> None:
    """Refuse parts that are each well formed and do not fit together."""
    recipe = saved.recipe
    placed = set(recipe.placement)
    if not placed or not placed <= set(LEVELS):
        raise ValueError(f"placement of {sorted(placed)}; allowed: {list(LEVELS)}")
    if recipe.keys.keys() & recipe.vectors.keys() or recipe.keys.keys() | recipe.vectors.keys() != placed:
        raise ValueError("keys and vectors are not each of one placed level")
    for what in ("positions", "learned", "few"):
        if not set(getattr(recipe, what)) <= placed:
            raise ValueError(f"{what} names levels that are not placed")
    if not placed <= recipe.unknown.keys() or saved.knowledge.dims.keys() != placed:
        raise ValueError("unknown or dims lack a placed level")
    if not 0 < recipe.width < 2**31 or not 0 < recipe.tasks < 2**31:
        raise ValueError("width or tasks is no size")
    ordered = (set(recipe.positions) | set(recipe.learned)) - recipe.vectors.keys()
    if saved.vocabularies.keys() != ordered:
        raise ValueError(f"vocabularies of {sorted(saved.vocabularies)}, and needed are {sorted(ordered)}")
    for level, vocabulary in saved.vocabularies.items():
        if vocabulary.names is not None:
            rows = {name: row for row, name in enumerate(vocabulary.names)}
            if len(rows) != vocabulary.ids or digest_of(rows, len(rows)) != vocabulary.sha256:
                raise ValueError(f"its names of {level} are not those of its digest")
    Tap.parse(recipe.tap)
    Output.parse(recipe.output)


def _told(error: Exception) -> str:
    """What is wrong, by field: the first three of many."""
    if not isinstance(error, ValidationError):
        return str(error)[:300].rstrip(".")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}"[:160] for one in found[:3]]
    return "; ".join(lines) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
