"""Stores and runs that the tests of the report are made of."""

from __future__ import annotations

import math

import numpy as np

from msr_enhance.store.manifest import Provenance
from msr_enhance.store.record import Record
from msr_enhance.store.writer import StoreWriter
from msr_enhance.train.comparison import Comparison, Gap, Score
from msr_enhance.train.run import Curves, Run, RunPart, RunRow

HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    "]]>&lt;b&gt;&#x3c;script&#x3e;",
    "a\u2028b\u2029c",
    "\u202eturned\u2066 around",
    "\"quotes' and `ticks` ${document.title='owned'}",
    "javascript:document.title='owned'",
    "\ufeffmark\u200d\u00ad",
    "tab\tnewline\nnull\u0001",
]
PLANTED = ("art", "food", "sea", "war")


def provenance(**identity):
    return Provenance(
        identity={"llm": {"model": "tiny", "state": {"kind": "last"}}, "history": 5, **identity},
        window={"protocol": "window", "cutoffs": {"feed": 10, "shop": 10}, "split": "scenario", "rows": 7},
        facts={"split": "in time", "template_names": ["default", "default"], "versions": {"numpy": "2"}},
    )


def user(number, *, name=None, status="ok", dim=16, layers=None, title="a title", answer=None, scale=1.0):
    """A user who likes one of four categories; the vector says which."""
    draw = np.random.default_rng(number)
    likes = number % len(PLANTED)
    vector = draw.normal(size=dim) + 4 * (np.arange(dim) == likes % dim)
    if layers:
        vector = np.stack([vector * (layer + 1) for layer in range(layers)])
    known = status in ("ok", "truncated")
    counts = {PLANTED[likes]: 3 + number % 3, PLANTED[(likes + 1) % 4]: 1}
    return Record(
        id=number if name is None else name,
        status=status,
        prompt=f"Prompt of user number {number}: {title}." if status != "empty" else "",
        text=(f"Answer about user number {number}." if answer is None else answer) if known else "",
        facts={
            "shown": {"feed": sum(counts.values()), "shop": 0},
            "total": {"feed": sum(counts.values()) + 2, "shop": 0},
            "categories": counts,
            "by_scenario": {"feed": counts, "shop": {}},
            "reason": "end" if known else f"no answer within {number} seconds",
        },
        prompt_tokens=20,
        answer_tokens=5 if known else 0,
        vector=(scale * vector if known else 0 * vector).astype(np.float32),
    )


def scenario(name, seed, dim=16):
    vector = np.random.default_rng(seed).normal(size=dim).astype(np.float32) + 3
    return Record(name, "ok", f"Prompt of {name}", f"Answer of {name}", {"scenario": name}, 9, 4, vector)


def write_store(path, users=(), scenarios=("feed", "shop", "sea")):
    """A store of these users and of scenarios with these names."""
    with StoreWriter.open(path, provenance()) as writer:
        if users:
            writer.append("user", list(users))
        if scenarios:
            writer.append("scenario", [scenario(name, at) for at, name in enumerate(scenarios)])
    return path


def mixed_users():
    """40 users: two empty, two failed, one truncated, one far away, three with one answer, one refusal."""
    rows = [user(number) for number in range(40)]
    rows[3], rows[4] = user(3, status="empty"), user(4, status="empty")
    rows[5], rows[6] = user(5, status="failed"), user(6, status="failed")
    rows[7] = user(7, status="truncated")
    rows[8] = user(8, scale=30.0)
    for at in (10, 11, 12):
        rows[at] = user(at, answer="They like the sea.")
    rows[13] = user(13, answer="I'm sorry, but I can't help with that.")
    return rows


def comparison(scenarios=("feed", "shop"), arms=("plain", "enhanced", "random"), **changes):
    def scores(base):
        names = [*scenarios, "mean"]
        return {
            name: Score(auc=base + 0.01 * at, spread=0.004, log_loss=0.6) for at, name in enumerate(names)
        }

    gap = Gap(mean=0.1, error_seeds=0.01, error_users=0.02)
    fields = {
        "scenarios": list(scenarios),
        "seeds": 2,
        "scores": {arm: scores(0.5 + 0.1 * at) for at, arm in enumerate(arms)},
        "gaps": {arm: dict.fromkeys([*scenarios, "mean"], gap) for arm in arms if arm != "plain"},
        "learning_rates": dict.fromkeys(arms, 0.01),
        "leak_probe": dict.fromkeys(scenarios, 0.51),
        "category_probe": {name: (None if at else 0.74) for at, name in enumerate(scenarios)},
        "rows": {"history": 9, "train": 8, "validation": 7, "test": 1234},
        "test_rows": dict.fromkeys(scenarios, 617),
        "test_positives": dict.fromkeys(scenarios, 300),
        "split": "in time",
        "window": {},
        "warnings": [],
        "alphas": {"user": 0.7},
        "coverage": 0.975,
        "settings": {"backbone": "star", "protocol": "window"},
        "provenance": {"commit": "c0ffee" * 6, "versions": {"torch": "2.10"}},
        "seconds": dict.fromkeys(arms, 1.0),
    }
    return Comparison(**fields | changes)


def explanation(user=1, item="a bright pack", text="likes the sea"):
    return RunRow(
        user=user,
        scenario="feed",
        item=item,
        label=1,
        logit=0.5,
        probability=1 / (1 + math.exp(-0.5)),
        parts=[
            RunPart(name="backbone", logit=-0.25, key=None, known=True, text=None, alpha=None),
            RunPart(name="user", logit=0.5, key=user, known=True, text=text, alpha=0.7),
            RunPart(name="scenario", logit=0.25, key="feed", known=False, text=None, alpha=0.4),
        ],
    )


def write_run(folder, store, fingerprint, **changes):
    """A run folder that names a store beside it."""
    folder.mkdir()
    curve = [0.5, 0.6, 0.7]
    fields = {
        "store": f"../{store.name}",
        "store_fingerprint": fingerprint,
        "comparison": comparison(),
        "curves": Curves(
            alpha={"user": [curve, curve[:2]]}, validation_auc={"plain": [curve], "enhanced": [curve]}
        ),
        "explanations": [explanation()],
    }
    Run(**fields | changes).save(folder)
    return folder
