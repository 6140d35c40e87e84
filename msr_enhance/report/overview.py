"""Overview: how a store was made, in lines for people."""

from __future__ import annotations

from typing import Any

from msr_enhance.store.adopt import Version
from msr_enhance.store.care.summary import summary
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.manifest import flat_fields
from msr_enhance.train.comparison import Comparison

ARMS = {
    "plain": "the backbone alone",
    "enhanced": "with the store's knowledge",
    "random": "vectors of noise with the store's mean and spread",
    "shuffled": "every user gets another user's vector",
    "learned": "a trained vector per user instead of knowledge",
    "concat": "the user's vector as plain input, no generated layers",
    "plain_all": "the backbone alone, trained on the history rows too",
}
"""What `msr_enhance.train.arms` says of each; that file needs torch, and this page does not."""

_LONG = 300


def levels(store: KnowledgeStore) -> list[dict[str, Any]]:
    """What each level of a store holds."""
    version = Version.of(store)
    return [
        {
            "level": level,
            **summary(version, level)._asdict(),
            "dim": store.dim(level),
            "layers": store.shape(level)[0] if len(store.shape(level)) > 1 else 1,
            "keyed": level in version.manifest.keyed,
        }
        for level in store.levels
    ]


def lines(store: KnowledgeStore, comparison: Comparison | None) -> list[tuple[str, str]]:
    """The provenance that a reader asks for first: name and value."""
    made = store.provenance
    identity, window = made.identity, made.window
    llm = identity.get("llm")
    llm = llm if isinstance(llm, dict) else {"model": llm or identity.get("model")}
    found: list[tuple[str, Any]] = [
        ("Model", llm.get("model")),
        ("Revision", llm.get("revision")),
        ("State", llm.get("state")),
        ("Decoding", llm.get("decoding")),
        ("Templates", made.facts.get("template_names") or identity.get("templates")),
        ("History", _history(identity.get("history"))),
        ("Protocol", window.get("protocol")),
        ("Cut-off", window.get("cutoffs") or _rows(window.get("rows"))),
        ("Split", made.facts.get("split") or window.get("split")),
        ("Changed", [str(step) for step in identity.get("transforms") or []]),
        ("Store", f"version {store.version}, vectors as {store.dtype}"),
        ("Fingerprint", store.fingerprint),
        ("Hub commit", store.commit),
        ("Versions", made.facts.get("versions")),
    ]
    if comparison:
        found += [
            ("Backbone", comparison.settings.get("backbone")),
            ("Comparison made with", comparison.provenance.get("versions")),
            ("Commit", comparison.provenance.get("commit")),
        ]
    return [(name, text) for name, value in found if (text := plain(value))]


def everything(store: KnowledgeStore) -> list[tuple[str, str]]:
    """Every field of the provenance, with its name joined by dots."""
    made = store.provenance
    parts = {"identity": made.identity, "window": made.window, "facts": made.facts}
    return [(name, value[:_LONG]) for name, value in flat_fields(parts)]


def plain(value: Any) -> str:
    """A value of JSON in words; empty where there is none."""
    if isinstance(value, dict):
        inner = {name: plain(one) for name, one in value.items()}
        texts = {text for text in inner.values() if text}
        if len(inner) > 1 and len(texts) == 1 and all(inner.values()):
            return f"{texts.pop()} (all {len(inner)})"
        return ", ".join(f"{name} {text}" for name, text in inner.items() if text)[:_LONG]
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, dict.fromkeys(map(plain, value))))[:_LONG]
    if isinstance(value, float) and not value.is_integer():
        return f"{value:g}"
    return "" if value is None else str(int(value) if isinstance(value, float) else value)[:_LONG]


def _history(value: Any) -> str:
    return f"{value} most recent positives per scenario" if value else ""


def _rows(value: Any) -> str:
    return f"{value:,} rows named by their digest" if isinstance(value, int) else ""
