"""MovieLens 100k as a log: a scenario for each group of genres.

    python examples/real_logs/movielens.py RAW OUT

RAW holds ``u.data``, ``u.item``, ``u.genre`` and ``u.user`` (GroupLens). OUT gets ``log.csv`` and
``platform.yaml``, in the default column names. A rating above 3 is a positive.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import polars as pl
import yaml

SCENARIOS = ("Drama", "Comedy", "Action")
PLATFORM = {
    "name": "a film rating site",
    "description": "Visitors rate films they have seen; a rating above 3 of 5 counts as liked.",
    "scenarios": [
        {"name": "Action", "description": "action films"},
        {"name": "Comedy", "description": "comedies without action"},
        {"name": "Drama", "description": "dramas that are neither comedy nor action"},
        {"name": "Other", "description": "all other films, such as documentaries, horror and thrillers"},
    ],
}


def items(raw: Path) -> pl.DataFrame:
    """Each film with its scenario, title, category and year.

    Args:
        raw: Folder of the MovieLens files.

    Returns:
        One row a film.
    """
    genres = [line.split("|")[0] for line in (raw / "u.genre").read_text(encoding="latin-1").split()]
    rows = []
    for line in (raw / "u.item").read_text(encoding="latin-1").splitlines():
        number, title, date, *rest = line.split("|")
        has = [name for name, flag in zip(genres, rest[-len(genres) :], strict=True) if flag == "1"]
        rows.append(
            {
                "item_id": number,
                "scenario": next((name for name in has if name in SCENARIOS), "Other"),
                "title": re.sub(r"\s*\(\d{4}\)\s*$", "", title),
                "category": " and ".join(has[:2]),
                "year": date[-4:],
            }
        )
    return pl.DataFrame(rows)


def read(path: Path, separator: str, columns: list[str]) -> pl.DataFrame:
    """A file without a header, every cell as it is written."""
    return pl.read_csv(path, separator=separator, has_header=False, new_columns=columns, infer_schema=False)


def prepare(raw: Path, out: Path) -> None:
    """Write ``log.csv`` and ``platform.yaml``.

    Args:
        raw: Folder of the MovieLens files.
        out: Folder to write to.
    """
    ratings = read(raw / "u.data", "\t", ["user_id", "item_id", "rating", "timestamp"])
    users = read(raw / "u.user", "|", ["user_id", "age", "gender", "occupation", "zip"])
    users = users.with_columns(age=pl.format("{}0s", pl.col("age").cast(pl.Int64) // 10)).drop("zip")
    log = ratings.join(items(raw), on="item_id", how="left", maintain_order="left")
    log = log.join(users, on="user_id", how="left", maintain_order="left")
    # The rating itself must go: as a feature it would tell the label.
    log = log.with_columns(label=(pl.col("rating").cast(pl.Int64) > 3).cast(pl.Int64)).drop("rating")
    out.mkdir(parents=True, exist_ok=True)
    log.write_csv(out / "log.csv")
    (out / "platform.yaml").write_text(yaml.safe_dump(PLATFORM, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
