"""The tokenizer of the built-in decoder: byte-level BPE on the standard library's English and our words.

It needs no network: the prose is what every CPython carries. Held-out category words are taken out.
"""

from __future__ import annotations

import ast
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.builtin_llm import words
from msr_enhance.prompts.scenario import ScenarioPrompt
from msr_enhance.prompts.user import UserPrompt

VOCABULARY = 3072
SPECIALS = ["<pad>", "<eos>"]
_REPEATS = 150


def prose(root: Path) -> Iterator[str]:
    """Docstrings of the standard library, one at a time, without code samples and held-out words."""
    for path in sorted(root.glob("*.py")) + sorted(root.glob("*/*.py")):
        if "test" in path.parts or "site-packages" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = re.sub(r"^\s*>>>.*$", "", ast.get_docstring(node) or "", flags=re.MULTILINE)
                yield re.sub(r"\w+", lambda word: "" if words.held_out(word[0]) else word[0], text)


def train() -> Any:
    """A `tokenizers.Tokenizer`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lists = [words.SEEN, words.SECOND, words.THINGS, words.QUALITIES, words.SCENARIOS, words.SCENARIO_SECONDS]
    known = [f" {word}" for source in lists for word in source if not words.held_out(word)]
    known += [text.lower() for text in known]
    fixed = [*UserPrompt.texts.values(), *ScenarioPrompt.texts.values(), *words.DESCRIPTIONS]
    fixed.append("\nCommon interests: none.\nOnly in it: none.\nThe scenario it.\nBeside it: none.")
    own = known * _REPEATS + fixed * _REPEATS * 2
    tokenizer.train_from_iterator(
        [*filter(None, prose(Path(sysconfig.get_paths()["stdlib"]))), *own], trainer
    )
    return tokenizer


def pieces(tokenizer: Any) -> list[str]:
    """Texts of the tokens that are letters only: what unseen words are put together from."""
    texts = (tokenizer.decode([number]) for number in range(tokenizer.get_vocab_size()))
    return sorted({text.strip() for text in texts if re.fullmatch(r" ?[A-Za-z]{1,5}", text)})
