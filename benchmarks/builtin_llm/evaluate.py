"""Score the built-in decoder on worlds it has not seen: its answers, and what its vectors carry.

python -m benchmarks.builtin_llm.evaluate --model builtin --movielens ../shared/data/movielens_100k
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.builtin_llm.movielens import lessons as movielens
from benchmarks.builtin_llm.worlds import NONE, Lesson, Truth, Worlds, truth

SEED = 7
"""Of the worlds here; training draws from another seed, and held-out words occur here alone."""
PIECES = (
    "ba",
    "co",
    "di",
    "fu",
    "ge",
    "hi",
    "ka",
    "lo",
    "mi",
    "nu",
    "pe",
    "ra",
    "so",
    "ti",
    "vu",
    "zen",
    "mar",
)
"""Random names are put together from these, not from the tokenizer's own tokens."""


def parse(text: str, names: Sequence[str]) -> Truth | None:
    """An answer as lists; None where it is not exactly of the form."""
    lines = text.strip("\n").split("\n")
    heads = ["Common interests: ", *(f"Only in {name}: " for name in names)]
    if len(lines) != len(heads):
        return None
    found = []
    for line, head in zip(lines, heads, strict=True):
        if not line.startswith(head) or not line.endswith(".") or not line[len(head) : -1].strip():
            return None
        body = line[len(head) : -1]
        found.append([] if body == NONE else body.split(", "))
    return Truth(found[0], found[1:])


def score(lessons: Sequence[Lesson], answers: Sequence[str]) -> dict[str, float]:
    """Shares of users; a category counts as top where no other occurs more often."""
    tally: Counter[str] = Counter()
    for lesson, text in zip(lessons, answers, strict=True):
        names = re.findall(r"^In (.*?): ", lesson.prompt, flags=re.MULTILINE)
        right, said = truth(lesson.histories), parse(text, names)
        counts = sum(map(Counter, lesson.histories), Counter[str]())
        tally["users"] += 1
        tally["same answer"] += text.strip() == lesson.answer.strip()
        if right.common:
            tally["with common"] += 1
        if said is None:
            continue
        tally["well-formed"] += 1
        named = [name for part in (said.common, *said.distinct) for name in part]
        tally["invented"] += any(name not in counts for name in named)
        tally["repeated"] += len(named) != len(set(named))
        tally["all true"] += set(said.common) <= set(right.common) and all(
            set(own) <= set(true) for own, true in zip(said.distinct, right.distinct, strict=True)
        )
        tally["no common, said so"] += not right.common and not said.common
        if right.common and said.common:
            tally["top common"] += said.common[0] == right.common[0]
            best = max(counts[name] for name in right.common)
            tally["top common, ties count"] += (
                counts[said.common[0]] == best and said.common[0] in right.common
            )
            tally["overlap"] += len(set(said.common) & set(right.common[:3])) / min(3, len(right.common))
        tally["distinct lists"] += len(names)
        tally["first distinct"] += sum(
            a[:1] == b[:1] for a, b in zip(said.distinct, right.distinct, strict=True)
        )
    shares = {
        name: tally[name] / tally["users"]
        for name in ("well-formed", "same answer", "all true", "invented", "repeated")
    }
    some = max(1, tally["with common"])
    shares |= {name: tally[name] / some for name in ("top common", "top common, ties count", "overlap")}
    shares["no common, said so"] = tally["no common, said so"] / max(1, tally["users"] - tally["with common"])
    shares["first distinct"] = tally["first distinct"] / max(1, tally["distinct lists"])
    return {name: round(value, 4) for name, value in shares.items()}


def probe(vectors: npt.NDArray[np.float32], shares: npt.NDArray[np.float64]) -> dict[str, float]:
    """Ridge regression of category shares on vectors, three quarters against one; the best penalty of five.

    The penalty is chosen on the last third of the training rows.
    """
    x = vectors.reshape(len(vectors), -1).astype(np.float64)
    cut, inner = len(x) * 3 // 4, len(x) // 2

    def fit(rows: int, penalty: float) -> Any:
        mean, scale = x[:rows].mean(0), x[:rows].std(0) + 1e-9
        z, middle = (x[:rows] - mean) / scale, shares[:rows].mean(0)
        weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (shares[:rows] - middle))
        return lambda new: (new - mean) / scale @ weights + middle

    def lost(rows: int, stop: int, penalty: float) -> float:
        return float(((fit(rows, penalty)(x[rows:stop]) - shares[rows:stop]) ** 2).sum())

    best = min((0.1, 1.0, 10.0, 100.0, 1000.0), key=lambda penalty: lost(inner, cut, penalty))
    guess, true = fit(cut, best)(x[cut:]), shares[cut:]
    top = true[np.arange(len(true)), guess.argmax(1)] == true.max(1)
    spread = ((true - shares[:cut].mean(0)) ** 2).sum()
    return {
        "top": round(float(top.mean()), 4),
        "r2": round(float(1 - ((guess - true) ** 2).sum() / spread), 4),
    }


class Fixed(Worlds):
    """Worlds of the same twelve categories, so that a linear probe has fixed targets."""

    def __init__(self, seed: int, kind: Any) -> None:
        super().__init__(seed, PIECES, kind=kind)
        self.fixed = super()._categories(12)
        self._styles = [self._titles() for _ in range(3)]

    def _categories(self, count: int) -> list[str]:
        return self.draw.sample(self.fixed, k=min(12, max(6, count)))


def shares_of(lessons: Sequence[Lesson], categories: Sequence[str]) -> npt.NDArray[np.float64]:
    """`[users, categories]`, how often each occurs in a user's prompt."""
    rows = []
    for lesson in lessons:
        counts = sum(map(Counter, lesson.histories), Counter[str]())
        rows.append([counts[name] for name in categories])
    table = np.array(rows, np.float64)
    return np.asarray(table / np.maximum(1, table.sum(1, keepdims=True)))


def main() -> None:
    """Print every score as JSON."""
    from msr_enhance.llm.huggingface import HuggingFaceLLM

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--probed", type=int, default=900)
    parser.add_argument("--movielens", type=Path)
    parser.add_argument("--show", type=int, default=2)
    given = parser.parse_args()
    llm = HuggingFaceLLM.load(given.model, max_new_tokens=160)
    pooled = HuggingFaceLLM.load(given.model, state="token-mean")

    def read(reader: Any, lessons: Sequence[Lesson]) -> list[Any]:
        prompts = [lesson.prompt for lesson in lessons]
        return [a for at in range(0, len(prompts), 64) for a in reader.answer(prompts[at : at + 64])]

    found: dict[str, Any] = {"answers": {}, "probes": {}}
    sets = {kind: (Worlds(SEED, PIECES, kind=kind), given.users) for kind in ("seen", "unseen", "random")}
    sets |= {
        f"{kind}, short": (Worlds(SEED, PIECES, level=0.4, kind=kind), given.users)
        for kind in ("seen", "unseen")
    }
    cases = {name: [worlds.user() for _ in range(users)] for name, (worlds, users) in sets.items()}
    if given.movielens:
        cases |= movielens(given.movielens, given.users)
    for name, lessons in cases.items():
        answers = read(llm, lessons)
        found["answers"][name] = score(lessons, [answer.text for answer in answers])
        if name.startswith("movielens"):
            top = Counter(c for lesson in lessons for h in lesson.histories for c in h).most_common(1)[0][0]
            always = [truth(lesson.histories).common for lesson in lessons]
            found["answers"][name]["always naming the commonest"] = round(
                sum(common[:1] == [top] for common in always) / max(1, sum(map(bool, always))), 4
            )
        print(name, json.dumps(found["answers"][name]), flush=True)
        for lesson, answer in list(zip(lessons, answers, strict=True))[: given.show]:
            print(f"--- true{lesson.answer}\n--- said\n{answer.text}")
    for kind in ("seen", "unseen"):
        worlds = Fixed(SEED, kind)
        lessons = [lesson for lesson in (worlds.user() for _ in range(given.probed)) if any(lesson.histories)]
        shares = shares_of(lessons, worlds.fixed)
        for name, reader in (("answer", llm), ("token mean", pooled)):
            vectors = np.stack([answer.vector for answer in read(reader, lessons)])
            found["probes"][f"{kind}, {name}"] = probe(vectors, shares)
            print("probe", kind, name, found["probes"][f"{kind}, {name}"], flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
