"""Train the tokenizer of the built-in decoder: byte-level BPE on the standard library's own English.

Run once; the result is committed as ``msr_enhance/llm/builtin_tokenizer.json``. It needs no network:
the text is what every CPython carries (docstrings and comments' prose), so the words are ordinary ones.

    python benchmarks/builtin_tokenizer/train.py msr_enhance/llm/builtin_tokenizer.json
"""

from __future__ import annotations

import ast
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 4096
SPECIALS = ["<pad>", "<eos>"]


def prose(root: Path) -> Iterator[str]:
    """Docstrings of the standard library, one at a time, without code samples."""
    for path in sorted(root.glob("*.py")) + sorted(root.glob("*/*.py")):
        if "test" in path.parts or "site-packages" in path.parts:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                yield re.sub(r"^\s*>>>.*$", "", text, flags=re.MULTILINE)


def main(out: Path) -> None:
    """Train and write the tokenizer as JSON."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = list(prose(Path(sysconfig.get_paths()["stdlib"])))
    tokenizer.train_from_iterator([text for text in texts if text], trainer)
    out.write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
    print(f"{tokenizer.get_vocab_size()} entries from {sum(map(len, texts)):,} characters -> {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
