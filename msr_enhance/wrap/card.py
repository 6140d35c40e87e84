"""Card: what people read about an enhanced model on the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from msr_enhance.card_text import as_code, facts_table
from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.saved import Saved

NAME: Final = "README.md"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")

_PRIVACY = """\
No user ids and {vectors} are in this repository: the vectors stay in the store, and of each
vocabulary of users only the number of ids and a digest are kept. Weights that were trained on people's clicks
may still tell of them."""
_LEARNED = """\

**The vectors of {levels} are trained and in `model.safetensors`, one for each of them. They started at the
knowledge vectors and may still be near them. They are personal data where they are of users.**
Keep this repository private unless everybody in it has agreed."""


def card(repo: str, saved: Saved, tensors: Mapping[str, int], license: str) -> str:
    """The card of a model.

    Args:
        repo: ``owner/name``.
        saved: What its config says.
        tensors: Numbers of each tensor in its file, by name.
        license: Its licence, as the Hub writes it.

    Returns:
        Markdown with the front matter that the Hub reads.

    Raises:
        EnhanceError: The licence is none of the Hub.
    """
    if not _LICENSE.fullmatch(license):
        raise EnhanceError(
            f"license={license!r} is no licence of the Hub; write its short name, such as mit or other."
        )
    front = yaml.safe_dump(
        {
            "license": license,
            "library_name": "msr-enhance",
            "tags": ["msr-enhance", "recommendation", "multi-scenario"],
        },
        sort_keys=False,
    )
    repo = re.sub(r"[^\w./@-]", "-", repo)[:200]
    learned = [level for level in saved.recipe.learned if level not in saved.recipe.vectors]
    levels = ", ".join(f"{level}s" for level in learned)
    vectors = f"no knowledge vectors but the trained ones of {levels}" if learned else "no knowledge vectors"
    privacy = _PRIVACY.format(vectors=vectors) + (_LEARNED.format(levels=levels) if learned else "")
    parts = [
        f"---\n{front}---",
        f"# {repo.rpartition('/')[2]}",
        f"A recommender, {as_code(saved.backbone.name)}, enhanced with knowledge from a frozen language "
        "model by [msr-enhance](https://arxiv.org/abs/2406.12529). Nothing in it is code or pickle, and "
        "reading it runs none.",
        "## How to load\n\n" + _how(repo, saved),
        "## What is in it\n\n" + facts_table(_content(saved, tensors)),
        "## How it was enhanced\n\n" + facts_table(saved.recipe.model_dump(mode="json")),
        "## The knowledge it was trained with\n\n" + facts_table(_knowledge(saved)),
        "## Privacy\n\n" + privacy,
    ]
    return "\n\n".join(parts) + "\n"


def _how(repo: str, saved: Saved) -> str:
    given, said = ["revision=COMMIT"], []
    unnamed = [level for level, held in saved.vocabularies.items() if held.names is None]
    if unnamed:
        given.append("vocabulary={" + ", ".join(f'"{level}": {level}_ids' for level in unnamed) + "}")
        said.append("The vocabulary is that of training, in its order; new ids may follow.")
    for what, sources in (("keys", saved.recipe.keys), ("vectors", saved.recipe.vectors)):
        functions = [level for level, source in sources.items() if source is None]
        if functions:
            given.append(f"{what}={{" + ", ".join(f'"{level}": {level}_of' for level in functions) + "}")
            said.append(f"The functions that find {what} of {', '.join(functions)} are passed again.")
    weights = "with its weights here" if saved.backbone.weights else "which brings its own weights"
    lines = [
        "from msr_enhance import EnhancedModel, KnowledgeStore",
        "",
        'store = KnowledgeStore.load("the store")  # or from_pretrained("owner/store", revision="...")',
        "model = EnhancedModel.from_pretrained(",
        f'    "{repo}", backbone, store, {", ".join(given)}',
        ")",
    ]
    if saved.knowledge.kind == "memory":
        lines[0] = "from msr_enhance import EnhancedModel"
        lines[2] = 'store = {"user": (ids, vectors), "scenario": (names, vectors)}'
    said.insert(
        0, f"`backbone` is a new module of the same class, {weights}; `COMMIT` a commit of this page."
    )
    return "```python\n" + "\n".join(lines) + "\n```\n\n" + " ".join(said)


def _content(saved: Saved, tensors: Mapping[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for prefix, name in (
        ("backbone.", "numbers of the backbone"),
        ("meta.", "numbers of the generated layers"),
    ):
        found[name] = f"{sum(count for one, count in tensors.items() if one.startswith(prefix)):,}"
    if not saved.backbone.weights:
        found["numbers of the backbone"] = "none, its weights are not in it"
    found["file"] = f"model.safetensors, {saved.weights.bytes:,} bytes"
    found["SHA-256"] = saved.weights.sha256
    found["format"] = f"{saved.format_version}, written by msr-enhance {saved.library_version}"
    for level, vocabulary in saved.vocabularies.items():
        held = "with its names" if vocabulary.names is not None else "only its length and digest"
        found[f"vocabulary of {level}s"] = f"{vocabulary.ids:,} ids, {held}"
    return found


def _knowledge(saved: Saved) -> dict[str, Any]:
    held = saved.knowledge
    facts: dict[str, Any] = {
        "kind": held.kind,
        **{f"{level} vectors": dim for level, dim in held.dims.items()},
    }
    facts |= {"fingerprint": held.fingerprint, "version": held.version, "commit on the Hub": held.commit}
    return {name: value for name, value in facts.items() if value is not None} | held.identity
