"""Part: which users belong to one of n equal shares of a run; the same share on every machine."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from msr_enhance.errors import DataError
from msr_enhance.store.record import exact_id

MOST_PARTS = 100_000  # five digits in a part's name

# (position, how many): what a launcher tells a process of its place among the others.
_LAUNCHERS = (("torchrun", "RANK", "WORLD_SIZE"), ("srun", "SLURM_PROCID", "SLURM_NTASKS"))
_ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")


@dataclass(frozen=True)
class Part:
    """One of `count` shares of the users: the unit of work, of retry and of upload.

    A user belongs to exactly one part, found from a hash of the exact id (7 and ``"7"`` differ). It does
    not depend on the process, on the machine or on which other users there are.

    Attributes:
        index: Which part, counted from 0.
        count: How many parts there are.

    Example:
        >>> Part.parse("3/16").name
        'part-00003-of-00016'
        >>> sum(part.holds("user-7") for part in Part.all(16))
        1
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= MOST_PARTS:
            raise DataError(f"{self.count} parts cannot be made; allowed: 1 to {MOST_PARTS:,}.")
        if not 0 <= self.index < self.count:
            raise DataError(
                f"there is no part {self.index} of {self.count}; parts are counted from 0, so "
                f"allowed: 0/{self.count} to {self.count - 1}/{self.count}."
            )

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] | None = None) -> Self:
        """Read ``i/n``, or with ``auto`` what torchrun or Slurm say to this process.

        ``auto`` looks for RANK and WORLD_SIZE (torchrun), then SLURM_PROCID and SLURM_NTASKS (srun). In a
        Slurm array (SLURM_ARRAY_TASK_ID and _COUNT, from _MIN in steps of _STEP) each task of the array
        takes its share of that.

        Args:
            text: For example ``3/16`` (parts are counted from 0), or ``auto``.
            environment: Where ``auto`` looks; by default the environment of this process.

        Raises:
            DataError: If the text is neither, the part is out of range, or ``auto`` finds nothing.
        """
        if text == "auto":
            return cls._from_environment(os.environ if environment is None else environment)
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise DataError(
                f"part {text!r} cannot be read; allowed: i/n with i counted from 0, or auto. "
                "Write --shard 0/4, --shard 1/4 and so on."
            )
        return cls(int(found[1]), int(found[2]))

    @classmethod
    def named(cls, name: str) -> Self | None:
        """The part of a name such as ``part-00003-of-00016``; None where it is no such name."""
        found = re.fullmatch(r"part-([0-9]{5})-of-([0-9]{5})", name)
        index, count = map(int, found.groups()) if found else (0, 0)
        return cls(index, count) if index < count else None

    @classmethod
    def all(cls, count: int) -> list[Self]:
        """Every part of `count`, in order."""
        cls(0, count)
        return [cls(index, count) for index in range(count)]

    @property
    def name(self) -> str:
        """Name of the part's folder, for example ``part-00003-of-00016``."""
        return f"part-{self.index:05d}-of-{self.count:05d}"

    def holds(self, id: int | str) -> bool:
        """Whether a user belongs to this part.

        Raises:
            StoreError: If the id is of a type that no store keeps.
        """
        exact = exact_id(id)
        kind = b"i" if isinstance(exact, int) else b"s"
        digest = hashlib.blake2b(kind + str(exact).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % self.count == self.index

    @classmethod
    def _from_environment(cls, environment: Mapping[str, str]) -> Self:
        place: tuple[int, int] | None = None
        for launcher, index, count in _LAUNCHERS:
            if index in environment and count in environment:
                place = (_whole(environment, index), _whole(environment, count))
                _check(launcher, index, place)
                break
        if all(name in environment for name in _ARRAY):
            first, step = (
                _whole(environment, f"SLURM_ARRAY_TASK_{name}", default)
                for name, default in (("MIN", 0), ("STEP", 1))
            )
            task, tasks = (_whole(environment, name) for name in _ARRAY)
            offset = task - first
            if offset % max(1, step):
                raise DataError(
                    f"{_ARRAY[0]} is {task}, which is no step of {step} from {first}. "
                    "Write the part instead: --shard i/n."
                )
            array = (offset // max(1, step), tasks)
            _check("Slurm array", _ARRAY[0], array)
            index_inside, inside = place or (0, 1)
            place = (array[0] * inside + index_inside, array[1] * inside)
        if place is None:
            looked = [f"{index} with {count} ({name})" for name, index, count in _LAUNCHERS]
            raise DataError(
                f"--shard auto found neither {', nor '.join(looked)}, nor {' with '.join(_ARRAY)} "
                "(Slurm array) in the environment. Start it with torchrun or srun, or write --shard i/n."
            )
        return cls(*place)


def _whole(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name)
    if text is None and default is not None:
        return default
    if text is None or re.fullmatch(r"[0-9]{1,9}", text) is None:
        raise DataError(f"{name} is {text!r} in the environment; allowed: a whole number. Write --shard i/n.")
    return int(text)


def _check(launcher: str, name: str, place: tuple[int, int]) -> None:
    index, count = place
    if not 0 <= index < count:
        raise DataError(
            f"{name} says {index} of {count} ({launcher}), which is out of range; "
            f"number the tasks in one unbroken run, or write --shard i/n."
        )
