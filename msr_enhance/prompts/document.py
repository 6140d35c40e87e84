"""Document: a frozen model that people write as YAML; plain data only, strictly read."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from msr_enhance.errors import PromptError


class Document(BaseModel):
    """Base of templates and platform files.

    Raises:
        PromptError: If a key is unknown, missing or repeated, or a value is of a wrong type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            faults = error.errors()
            seen = [
                ": ".join(
                    filter(None, (".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")))
                )
                for e in faults
            ]
            kinds = {e["type"] for e in faults}
            if kinds & {"extra_forbidden", "missing"}:
                seen.append(f"allowed keys: {', '.join(type(self).model_fields)}")
            if "string_type" in kinds:
                seen.append("put text in quotes where YAML would read a number, a date or yes/no")
            raise PromptError(f"{type(self).__name__} cannot be used: {'; '.join(seen)}") from error

    @classmethod
    def from_text(cls, text: str, source: str = "the text") -> Self:
        """Read YAML.

        Args:
            text: The YAML.
            source: Where it is from, for messages.

        Returns:
            The document.

        Raises:
            PromptError: If the text is no such document.
        """
        try:
            content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
        except (yaml.YAMLError, ValueError) as error:
            raise PromptError(f"{source} is not YAML that can be read: {error}") from error
        if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
            raise PromptError(
                f"{source} holds a {type(content).__name__}; "
                f"write a mapping with the keys {', '.join(cls.model_fields)}."
            )
        try:
            return cls(**content)
        except PromptError as error:
            raise PromptError(f"{source}: {error}") from error

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file.

        Args:
            path: A file that ``to_yaml`` wrote, or one with the same keys.

        Returns:
            The document.

        Raises:
            PromptError: If there is no such file, or it holds no such document.
        """
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PromptError(f"{path} cannot be read as a {cls.__name__}: {error}") from error
        return cls.from_text(text, str(path))

    def to_text(self) -> str:
        """The document as YAML, in the order of its fields."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    def to_yaml(self, path: str | Path) -> None:
        """Write a YAML file; ``from_yaml`` gives an equal document back."""
        Path(path).write_text(self.to_text(), "utf-8")


class _Loader(yaml.SafeLoader):
    """Plain data; a key that is written twice is refused, not overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [str(key) for key in keys if keys.count(key) > 1]:
            raise yaml.MarkedYAMLError(problem=f"{twice[0]!r} is written twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block, the way people edit it."""


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML writes other line breaks than \n in a way that it reads back as \n; in quotes they are escaped.
    plain = text.replace("\n", "").isprintable()
    style = ("|" if "\n" in text else None) if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text_node)
