"""A run folder: what a comparison measured and what people look at later, in one file beside its store."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from msr_enhance.atomic import folder_time, read_small, write_bytes_new
from msr_enhance.errors import DataError
from msr_enhance.train.comparison import Comparison

NAME: Final = "run.json"
LIMIT: Final = 64 * 2**20
"""A larger run.json is not read: a run holds curves and a dozen explanations, not rows."""
VERSION: Final = 1
_FORMAT: Final = "msr-enhance-run"

Id = int | str
Curve = list[float]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RunPart(_Strict):
    """What the backbone, or the layers of one level, add to a row's logit; see `msr_enhance.explain`.

    Attributes:
        name: Whose part it is.
        logit: What it adds.
        key: The row's id of that level; None for the backbone.
        known: Whether there was knowledge; True for the backbone.
        text: The stored answer behind it.
        alpha: Mixing weight of parallel layers.
    """

    name: Literal["backbone", "user", "scenario"]
    logit: float
    key: Id | None
    known: bool
    text: str | None
    alpha: float | None


class RunRow(_Strict):
    """The explanation of one row.

    Attributes:
        user: Its user.
        scenario: Its scenario.
        item: The item's text and category, or its id.
        label: What happened.
        logit: The enhanced model's; the sum of the parts.
        probability: Its sigmoid.
        parts: In the order in which they are added.
    """

    user: Id
    scenario: str
    item: str
    label: Annotated[int, Field(ge=0, le=1)] | None
    logit: float
    probability: Annotated[float, Field(ge=0, le=1)]
    parts: list[RunPart]

    @model_validator(mode="after")
    def _summed(self) -> Self:
        total = sum(part.logit for part in self.parts)
        if abs(total - self.logit) > 1e-4 * max(1.0, *(abs(part.logit) for part in self.parts), 0.0):
            raise ValueError(f"the parts sum to {total:g} and the logit is {self.logit:g}")
        sigmoid = 0.5 * (1 + math.tanh(self.logit / 2))
        if abs(self.probability - sigmoid) > 1e-4:
            raise ValueError(f"the probability is {self.probability:g} and the logit's sigmoid {sigmoid:g}")
        return self


class Curves(_Strict):
    """What was watched during training at the chosen learning rates; the first value is before training.

    Attributes:
        alpha: level → seed → the enhanced model's mixing weight after each epoch.
        validation_auc: arm → seed → mean-of-scenarios AUC after each epoch.
    """

    alpha: dict[str, list[Curve]] = Field(default_factory=dict)
    validation_auc: dict[str, list[Curve]] = Field(default_factory=dict)


class Run(_Strict):
    """Everything that one `demo` or `compare` leaves behind, but the store; loading it needs no torch.

    Attributes:
        format: Always ``msr-enhance-run``.
        version: Of the format.
        store: Where the store is, as it is written in the file; see `store_path`.
        store_fingerprint: Of the store that was compared.
        comparison: All figures.
        curves: Training curves.
        explanations: Some test rows, scored by the enhanced model of seed 0; see
            `msr_enhance.train.explained.chosen_rows` for which.
    """

    format: Literal["msr-enhance-run"] = _FORMAT
    version: Literal[1] = VERSION
    store: str
    store_fingerprint: str
    comparison: Comparison
    curves: Curves
    explanations: list[RunRow]

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a run folder.

        Raises:
            DataError: There is no run.json, it is too large, damaged, or of another version.
        """
        path = Path(folder) / NAME
        try:
            data = read_small(path, LIMIT)
        except OSError as error:
            raise DataError(
                f"{folder} is no run folder: {path} cannot be read ({error.strerror or error}). Write RUN as "
                "`msr-enhance demo --out RUN` or `msr-enhance compare --out RUN` made it."
            ) from error
        if len(data) > LIMIT:
            raise DataError(f"{path} has more than {LIMIT:,} bytes; no run is that large. Make it again.")
        _check_version(path, data)
        try:
            held = cls.model_validate_json(data, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"]) or "(top)"
            raise DataError(
                f"{path} is not what a run writes: {where}: {first['msg']} ({error.error_count()} faults). "
                "Make the run again."
            ) from error
        try:
            json.dumps(held.comparison.model_dump(), allow_nan=False)
        except ValueError as error:
            raise DataError(
                f"{path} is not what a run writes: comparison: NaN or an infinity; allowed: finite numbers. "
                "Make the run again."
            ) from error
        return held

    def save(self, folder: str | Path) -> Path:
        """Write run.json into an existing folder, whole or not at all; an older one is replaced.

        Returns:
            The file.

        Raises:
            OSError: The disk refuses.
        """
        write_bytes_new(Path(folder), NAME, (self.model_dump_json(indent=1) + "\n").encode())
        return Path(folder) / NAME

    def store_path(self, folder: str | Path) -> Path:
        """Where the store of the run in this folder is."""
        return Path(os.path.normpath(Path(folder).resolve() / os.fsdecode(self.store.encode())))


def written_path(store: Path, folder: Path) -> str:
    """A store's path as a run names it: relative where it lies inside the run or beside it, else absolute.

    So a run folder may be moved with its store.

    Raises:
        DataError: The path is no Unicode, which JSON cannot hold.
    """
    there, here = store.resolve(), folder.resolve()
    near = there.is_relative_to(here) or there.parent == here.parent
    written = Path(os.path.relpath(there, here)).as_posix() if near else str(there)
    try:
        return os.fsencode(written).decode()  # the same in every locale
    except UnicodeDecodeError as error:
        raise DataError(
            f"The store's path is {os.fsencode(written)!r}; a run names its store, and can name none whose "
            "path is no UTF-8. Rename the folder."
        ) from error


def new_run(folder: Path) -> Path:
    """Make a folder for a run, before the work whose result it is to hold.

    Raises:
        DataError: A file, the name of one, a folder with a run in it, or one that cannot be written to.
    """
    try:
        return _new_run(folder)
    except OSError as error:
        raise DataError(
            f"--out is {str(folder)!r}, and that folder cannot be made or written to ({error.strerror}); "
            "write a folder in one that can be written to."
        ) from error


def _new_run(folder: Path) -> Path:
    if folder.suffix.lower() == ".json" or folder.is_file():
        raise DataError(
            f"--out is {str(folder)!r}, a file; it names a folder now, and the result is in its {NAME}. "
            f"Write --out {str(folder.with_suffix('')) + ('-run' if not folder.suffix else '')}."
        )
    if (folder / NAME).exists():
        raise DataError(f"--out is {str(folder)!r}, which holds a run already; write a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    folder_time(folder)  # writes a file and takes it away: better now than after hours of training
    return folder


def _check_version(path: Path, data: bytes) -> None:
    """Say of another program's file, or of a later version's, that it is one."""
    try:
        held = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged, it holds no JSON ({error}); make the run again.") from error
    kind = held.get("format") if isinstance(held, dict) else None
    if kind != _FORMAT:
        raise DataError(f"{path} has the format {str(kind)[:40]!r}; allowed: {_FORMAT!r}.")
    if held.get("version") != VERSION:
        raise DataError(
            f"{path} is of version {str(held.get('version'))[:40]}; this library reads version {VERSION}. "
            "Make the run again, or use the library that wrote it."
        )
