"""Card: what people read about a store on the Hub."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import yaml

from msr_enhance.card_text import facts_table
from msr_enhance.store.level import LevelReader
from msr_enhance.store.manifest import Manifest
from msr_enhance.store.record import STATUSES, Level

NAME = "README.md"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_SIZES += ((10_000_000, "1M<n<10M"), (100_000_000, "10M<n<100M"))  # type: ignore[assignment]

_PRIVACY = """\
These vectors are made to reveal what people are interested in. They are personal data, and **not
anonymous**: a vector may be traced back to the prompt it was read from, and neither hashing ids nor
storing fewer or smaller numbers changes that. Keep this repository private unless everybody in it has
agreed. Whoever has copied a file keeps it when the repository is changed: to take a person out, run
`msr-enhance store forget` on the store, push again, squash the history of the repository, and delete the
old LFS files permanently. Models that were trained on the vectors are not changed by that."""


def card(
    repo: str, manifest: Manifest, levels: Mapping[Level, LevelReader], *, texts: bool, license: str
) -> str:
    """The card of a store.

    Args:
        repo: ``owner/name``, or another name where it is not known yet.
        manifest: Of the store.
        levels: Its levels.
        texts: Whether prompts and answers are in it.
        license: Its licence, as the Hub writes it.

    Returns:
        Markdown with the front matter that the Hub reads.
    """
    repo = _plain(repo)
    statistics = {level: _statistics(reader) for level, reader in levels.items()}
    rows = sum(reader.count for reader in levels.values())
    front = yaml.safe_dump(
        {
            "license": license,
            "pretty_name": repo.rpartition("/")[2],
            "tags": ["msr-enhance", "recommendation", "user-knowledge"],
            "size_categories": [next((name for most, name in _SIZES if rows < most), "100M<n<1B")],
            "configs": [
                {"config_name": f"{level}s", "data_files": f"{level}s.jsonl", "default": level == "user"}
                for level in levels
            ],
        },
        sort_keys=False,
        allow_unicode=True,
    )
    keyed = "user" in manifest.keyed
    parts = [
        f"---\n{front}---",
        f"# {repo.rpartition('/')[2]}",
        "What a frozen language model said about the users and scenarios of a recommender, as vectors: a "
        "knowledge store of [msr-enhance](https://arxiv.org/abs/2406.12529). Nothing in it is code, and "
        "reading it runs none.",
        "## How to load\n\n" + _how(repo, levels, keyed),
        "## What is in it\n\n" + _levels(manifest, levels, statistics, texts, keyed),
        "## How it was made\n\n"
        + facts_table({**manifest.provenance.identity, "window": manifest.provenance.window}),
        "## Privacy\n\n" + _PRIVACY,
    ]
    return "\n\n".join(parts) + "\n"


def _how(repo: str, levels: Mapping[Level, LevelReader], keyed: bool) -> str:
    key = ', key="the key file"' if keyed else ""
    level: Level = "user" if "user" in levels else "scenario"
    lines = [
        "from msr_enhance import KnowledgeStore",
        "",
        f'store = KnowledgeStore.from_pretrained("{repo}", revision="a commit of this page"{key})',
        f'vectors = store.vectors("{level}", {level}_ids)  # [len({level}_ids), {levels[level].shape[-1]}]',
    ]
    said = "```python\n" + "\n".join(lines) + "\n```"
    if keyed:
        said += (
            "\n\nUser ids are hashed with a secret key that is not in this repository. Whoever has the key "
            "looks up users by their own ids; without it, only by the hashes."
        )
    return said


def _levels(
    manifest: Manifest,
    levels: Mapping[Level, LevelReader],
    statistics: Mapping[Level, Mapping[str, str]],
    texts: bool,
    keyed: bool,
) -> str:
    names = ["rows", *dict.fromkeys(name for found in statistics.values() for name in found)]
    lines = ["| | " + " | ".join(levels) + " |", "|---|" + "---:|" * len(levels)]
    for name in names:
        cells = [statistics[level].get(name, "") for level in levels]
        if name == "rows":
            cells = [f"{reader.count:,}" for reader in levels.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    said = [
        f"Numbers are {manifest.dtype}"
        + (", with a scale for each dimension." if manifest.dtype == "int8" else "."),
        "Prompts and answers are in it." if texts else "Prompts and answers are not in it.",
        "User ids are keyed hashes." if keyed else "Ids are as in the log.",
        "The JSON Lines files list ids and states for the viewer; the vectors are in the `vec-` files, with "
        "a checksum each, which `manifest-*.json` names.",
    ]
    return "\n".join(lines) + "\n\n" + " ".join(said)


def _statistics(reader: LevelReader) -> dict[str, str]:
    """Counts and norms of a level."""
    found = {"numbers in a vector": " x ".join(map(str, reader.shape))}
    statuses = np.bincount(reader.live().status, minlength=len(STATUSES)).tolist()
    found |= {
        f"status {status}": f"{count:,}" for status, count in zip(STATUSES, statuses, strict=True) if count
    }
    norms = np.concatenate(
        [np.empty(0), *(np.linalg.norm(block, axis=1) for block in reader.known_vectors())]
    )
    if len(norms):
        low, middle, high = np.quantile(norms, [0.01, 0.5, 0.99]).tolist()
        found["norm, median"] = f"{middle:.3g}"
        found["norm, 1 % to 99 %"] = f"{low:.3g} to {high:.3g}"
    return found


def _plain(name: str) -> str:
    """A name without anything that could end a line of code or begin markup."""
    return re.sub(r"[^\w./@-]", "-", name)[:200]
