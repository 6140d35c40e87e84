"""Amazon 2014 reviews of Beauty, Sports and Toys as a log: a scenario for each domain.

    python examples/real_logs/amazon.py RAW OUT

RAW holds ``<Domain>.user_sequence.txt`` (a user a line: id, then items in time order) and
``<Domain>.item_text.txt`` (item id, then a few words). OUT gets ``log.csv`` and ``platform.yaml``. The data
has positives only and no times, so two things are made here, both with a fixed seed: a negative for every
positive, and item categories (text clusters). The place in a user's sequence is the order, so the commands
need ``--column order=order``. Needs scikit-learn.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import normalize

DOMAINS = ("Beauty", "Sports", "Toys")
SEED, CLUSTERS, DIMS = 2014, 40, 100
MOST_SHARED = 0.05  # a word in more of the items than this ("beauty", "toys") groups nothing
SHARED_USERS, OTHER_USERS = 2_500, 800
PLATFORM = {
    "name": "an online shop",
    "description": "A shop for many kinds of goods; a customer's reviewed products count as liked.",
    "scenarios": [
        {"name": "Beauty", "description": "hair, skin, nails, make-up and fragrance"},
        {"name": "Sports", "description": "sports and outdoor goods"},
        {"name": "Toys", "description": "toys and games"},
    ],
}


def read_lines(path: Path) -> dict[str, list[str]]:
    """First word of each line → its other words.

    Args:
        path: One of the two kinds of file.

    Returns:
        A list for each user or item, in the file's order.
    """
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {first: rest for first, *rest in filter(None, lines)}


def sample_users(domains: dict[str, dict[str, list[str]]]) -> list[str]:
    """Users of two or more domains, and some others.

    Args:
        domains: Domain → user → items.

    Returns:
        At most `SHARED_USERS` + `OTHER_USERS` ids.
    """
    draw = np.random.default_rng(SEED)
    active = Counter(user for users in domains.values() for user in users)
    chosen: list[str] = []
    for shared, most in ((True, SHARED_USERS), (False, OTHER_USERS)):
        group = sorted(user for user, count in active.items() if (count > 1) == shared)
        chosen += draw.choice(group, min(most, len(group)), replace=False).tolist() if group else []
    return chosen


def cluster_names(texts: dict[str, str]) -> dict[str, str]:
    """A category for each item: text clusters, named by their strongest words.

    Args:
        texts: Item → words.

    Returns:
        Item → category such as ``"hair shampoo"``.
    """
    tfidf = TfidfVectorizer(sublinear_tf=True, stop_words="english", max_df=MOST_SHARED)
    matrix = tfidf.fit_transform(texts.values())
    words = tfidf.get_feature_names_out()
    # Without the projection one cluster takes half of the items: these texts share hardly a word.
    dims = min(DIMS, len(words) - 1)
    points = normalize(TruncatedSVD(dims, random_state=SEED).fit_transform(matrix))
    clusters = min(CLUSTERS, len(set(texts.values())))
    labels = KMeans(clusters, n_init=1, random_state=SEED).fit_predict(points)
    names: list[str] = []
    for label in range(clusters):
        weight = np.asarray(matrix[labels == label].sum(axis=0)).ravel()
        strongest = words[np.argsort(-weight, kind="stable")]
        size = 2
        while " ".join(strongest[:size]) in names and size < len(strongest):
            size += 1
        names.append(" ".join(strongest[:size]))
    return dict(zip(texts, (names[label] for label in labels), strict=True))


def interactions(
    domain: str, sequences: dict[str, list[str]], users: list[str]
) -> list[tuple[str, str, str, int, int]]:
    """The chosen users' positives, each with one negative of the same order.

    Half of the negatives are drawn evenly from the domain's items and half by popularity; never an item
    that the user has in the domain, never one twice.

    Args:
        domain: Which domain this is.
        sequences: User → items, of all users, so that popularity is the domain's.
        users: The chosen users.

    Returns:
        Rows of user, item, scenario, label, order.

    Raises:
        ValueError: A user has more than half of the domain's items, so too few are left.
    """
    draw = np.random.default_rng([SEED, DOMAINS.index(domain)])
    popularity = Counter(item for sequence in sequences.values() for item in sequence)
    items = sorted(popularity)
    weights = np.cumsum([popularity[item] for item in items])
    rows = []
    for user in users:
        liked = sequences.get(user, [])
        taken = set(liked)
        if len(taken) + len(liked) > len(items):
            raise ValueError(
                f"user {user} has {len(taken)} of {len(items)} items of {domain}; leave the user out"
            )
        for place, item in enumerate(liked):
            even = draw.random() < 0.5
            while True:
                at = (
                    draw.integers(len(items))
                    if even
                    else np.searchsorted(weights, draw.integers(weights[-1]), "right")
                )
                if (other := items[int(at)]) not in taken:
                    break
            taken.add(other)
            rows += [(user, item, domain, 1, place), (user, other, domain, 0, place)]
    return rows


def prepare(raw: Path, out: Path) -> None:
    """Write ``log.csv`` and ``platform.yaml``.

    Args:
        raw: Folder of the files of the three domains.
        out: Folder to write to.
    """
    domains = {name: read_lines(raw / f"{name}.user_sequence.txt") for name in DOMAINS}
    users = sample_users(domains)
    frames = []
    for name, sequences in domains.items():
        texts = {item: " ".join(words) for item, words in read_lines(raw / f"{name}.item_text.txt").items()}
        categories = cluster_names(texts)
        rows = pl.DataFrame(
            interactions(name, sequences, users),
            schema=["user_id", "item_id", "scenario", "label", "order"],
            orient="row",
        )
        frames.append(
            rows.with_columns(
                title=rows["item_id"].replace_strict(texts, default=""),
                category=rows["item_id"].replace_strict(categories, default=""),
            )
        )
    # A positive and its negative share their order: without the shuffle, row order would tell the label.
    log = pl.concat(frames)
    log = log[np.random.default_rng(SEED).permutation(len(log))]
    out.mkdir(parents=True, exist_ok=True)
    log.write_csv(out / "log.csv")
    (out / "platform.yaml").write_text(yaml.safe_dump(PLATFORM, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
