"""Template: frozen text with named fields, and how untrusted text enters it."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from msr_enhance.errors import PromptError, not_one_of
from msr_enhance.fingerprint import fingerprint
from msr_enhance.prompts.document import Document

# Part of every fingerprint; counts up when the same template and facts would give another text.
RENDERER = 1

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@functools.lru_cache(maxsize=1 << 16)  # the titles of popular items come by thousands of times
def clean_text(value: str, limit: int = 200) -> str:
    """Text of a log as a prompt may show it: one line, visible characters only, not too long.

    Control, format (bidirectional, zero-width) and surrogate characters are removed, the rest is
    brought to NFC, each run of whitespace becomes one space, and the text is cut.

    Args:
        value: Any text.
        limit: The most characters to keep.

    Returns:
        The cleaned text, perhaps empty.
    """
    visible = (c for c in value if c.isspace() or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    line = " ".join(unicodedata.normalize("NFC", "".join(visible)).split())
    return line[:limit].rstrip()


class Template(Document):
    """A prompt's text with fields in braces.

    A field is a bare declared name, ``{scenario}``; ``{{`` and ``}}`` are literal braces. There is no
    attribute, index, conversion or format spec, and a value is never read for fields again. A line
    whose fields are all empty is left out.

    Attributes:
        name: What reports call the template.
        text: The text.
        allowed: The fields a template of this kind may use.
        texts: The templates that ship with the library, by name.
    """

    allowed: ClassVar[tuple[str, ...]] = ()
    texts: ClassVar[Mapping[str, str]] = {}

    name: str
    text: str

    def model_post_init(self, context: Any) -> None:
        """Refuse text with anything but declared fields in its braces."""
        for token in _TOKEN.finditer(self.text):
            if token[0] not in ("{{", "}}") and token[1] not in self.allowed:
                fields = ", ".join(f"{{{name}}}" for name in self.allowed) or "(none)"
                raise PromptError(
                    f"template {self.name!r} has {token[0][:80]!r} at character {token.start()}; "
                    f"allowed: {fields}, by bare name only. Write {{{{ and }}}} for braces in the text."
                )

    @classmethod
    def named(cls, name: str) -> Self:
        """A template that ships with the library.

        Args:
            name: One of ``texts``.

        Returns:
            The template.

        Raises:
            PromptError: If there is no template of that name.
        """
        if name not in cls.texts:
            raise PromptError(
                not_one_of("template", name, cls.texts, f"For a file write {cls.__name__}.from_yaml(path).")
            )
        return cls(name=name, text=cls.texts[name])

    def fingerprint(self) -> str:
        """Digest of what changes a prompt: the kind, the text and the renderer, not the name."""
        return fingerprint({"kind": type(self).__name__, "renderer": RENDERER, "text": self.text})

    def render(self, values: Mapping[str, str]) -> str:
        """The text with its fields filled in.

        Args:
            values: A value for each field the text uses.

        Returns:
            The finished text.

        Raises:
            PromptError: If a field has no value.
        """
        lines = []
        for line in self.text.split("\n"):
            fields = [token[1] for token in _TOKEN.finditer(line) if token[1]]
            if missing := [field for field in fields if field not in values]:
                raise PromptError(
                    f"template {self.name!r} needs {missing[0]!r}; values were given for {', '.join(values)}."
                )
            if not fields or any(values[field] for field in fields):
                lines.append(_TOKEN.sub(lambda token: values[token[1]] if token[1] else token[0][0], line))
        return "\n".join(lines)
