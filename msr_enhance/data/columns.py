"""Columns: which column of a log is the user, the item, the scenario, the label, the time and the text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from msr_enhance.errors import DataError, not_one_of

_REQUIRED = ("user", "item", "scenario", "label")
_LISTS = ("text", "features")


class Columns(BaseModel):
    """The role of every column in an interaction log.

    A default of ``time``, ``text`` and ``category`` counts only where the log has that column; a column that
    was named explicitly must be there.

    Attributes:
        user: Who acted; integers or strings.
        item: On what; integers or strings.
        scenario: Where (the domain, the page, the tab).
        label: 1 for a positive, 0 for a negative.
        time: When, comparable over the whole log; numbers or dates.
        order: What came first for one user, where no time is known or the times are too coarse.
        text: What a prompt says of an item. The category, where there is one, always closes it.
        category: What groups items; it is prompt text and a feature of the backbones.
        features: What the reference backbones read besides user, item and scenario; None is every column
            without another role, and the category.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user: str = "user_id"
    item: str = "item_id"
    scenario: str = "scenario"
    label: str = "label"
    time: str | None = "timestamp"
    order: str | None = None
    text: tuple[str, ...] = ("title", "category")
    category: str | None = "category"
    features: tuple[str, ...] | None = None

    @classmethod
    def from_options(cls, options: Iterable[str]) -> Columns:
        """Read the command line's repeated ``--column ROLE=NAME``.

        Args:
            options: ``"user=uid"``, or ``"text=title,brand"`` for a list; ``"time="`` says there is none.

        Returns:
            Columns in which every named role counts as explicit.

        Raises:
            DataError: A role is unknown or named twice, or a required role has no column.
        """
        values: dict[str, Any] = {}
        for option in options:
            role, sign, name = (part.strip() for part in option.partition("="))
            if role not in cls.model_fields:
                write = "Write --column ROLE=NAME, for example --column user=uid."
                raise DataError(not_one_of("column role", role, cls.model_fields, write))
            if role in values:
                raise DataError(
                    f"column role {role!r} was given twice. Write it once; text and features take a list, "
                    f"for example --column text=title,brand."
                )
            if not sign or (role in _REQUIRED and not name):
                raise DataError(f"column option {option!r} names no column. Write --column {role}=NAME.")
            if role in _LISTS:
                values[role] = tuple(part.strip() for part in name.split(",") if part.strip())
            else:
                values[role] = name or None
        return cls(**values)

    def resolve(self, available: Sequence[str]) -> Columns:
        """The columns of one given log: absent defaults dropped, features spelled out in the log's order.

        Args:
            available: The column names of the log.

        Returns:
            Columns that are all there; resolving them again changes nothing.

        Raises:
            DataError: A required or explicitly named column is missing, a column has two roles, or the log
                has neither a time nor an order.
        """
        kept: dict[str, tuple[str, ...]] = {}
        missing: list[str] = []
        for role in type(self).model_fields:
            value = getattr(self, role)
            names = (value,) if isinstance(value, str) else value or ()
            kept[role] = tuple(name for name in names if name in available)
            if role in _REQUIRED or role in self.model_fields_set:
                missing += [f"{role} column {name!r}" for name in names if name not in available]
        if missing:
            role = missing[0].split()[0]
            raise DataError(
                f"the log has no {', no '.join(missing)}; its columns are: {_listed(available)}. "
                f"Write --column {role}=NAME, or Columns({role}=...) in Python."
            )
        if not kept["time"] and not kept["order"]:
            raise DataError(
                f"a log without time or order cannot be divided into past and future; its columns are: "
                f"{_listed(available)}. Write --column time=NAME, or --column order=NAME for a column that "
                f"says what came first for each user."
            )
        single = {role: next(iter(kept[role]), None) for role in kept if role not in _LISTS}
        text = tuple(name for name in kept["text"] if name != single["category"]) + kept["category"]
        self._refuse_two_roles(single, text, kept["features"])
        features = kept["features"]
        if self.features is None:
            taken = {name for role, name in single.items() if role != "category"} | set(text) - {
                *kept["category"]
            }
            features = tuple(name for name in available if name not in taken)
        return Columns.model_validate({**single, "text": text, "features": features})

    @staticmethod
    def _refuse_two_roles(
        single: dict[str, str | None], text: tuple[str, ...], features: tuple[str, ...]
    ) -> None:
        owner: dict[str, str] = {}
        claims = [(role, name) for role, name in single.items() if name is not None]
        listed = [("text", name) for name in text if name != single["category"]]
        listed += [("features", name) for name in features if name != single["category"] and name not in text]
        for role, name in claims + listed:
            if name in owner:
                raise DataError(
                    f"column {name!r} is both {owner[name]} and {role}; a column has one role "
                    f"(only the category may also be text and a feature). "
                    f"Name another column, or copy this one under a new name: --column {role}=NAME."
                )
            owner[name] = role


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:40])
    return f"{shown}, and {len(names) - 40} more" if len(names) > 40 else shown or "(none)"
