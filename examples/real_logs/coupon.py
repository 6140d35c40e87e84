"""The in-vehicle coupon survey as a log: a scenario for each kind of coupon.

    python examples/real_logs/coupon.py RAW OUT

RAW holds ``in-vehicle-coupon-recommendation.csv`` (UCI). OUT gets ``log.csv`` and ``platform.yaml``. The
survey has no user id and no time: rows with the same profile are one user (a profile that comes back later
is the same user), and the row number is the order, so the commands need ``--column order=order``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import yaml

FILE = "in-vehicle-coupon-recommendation.csv"
PROFILE = [
    "gender", "age", "maritalStatus", "has_children", "education", "occupation", "income", "cartype",
    "Bar", "CoffeeHouse", "CarryAway", "RestaurantLessThan20", "Restaurant20To50",
]  # fmt: skip
PLATFORM = {
    "name": "an in-car coupon service",
    "description": "A driver is shown a coupon of a place nearby and says whether to go there.",
    "scenarios": [
        {"name": "Bar", "description": "coupons for bars"},
        {"name": "Carry out & Take away", "description": "coupons for food to take away"},
        {"name": "Coffee House", "description": "coupons for coffee houses"},
        {"name": "Restaurant(20-50)", "description": "coupons for restaurants, 20 to 50 dollars a person"},
        {"name": "Restaurant(<20)", "description": "coupons for restaurants below 20 dollars a person"},
    ],
}


def prepare(raw: Path, out: Path) -> None:
    """Write ``log.csv`` and ``platform.yaml``.

    Args:
        raw: Folder of the survey file.
        out: Folder to write to.
    """
    # As words: a blank cartype stays blank, and "4~8" is no number.
    frame = pl.read_csv(raw / FILE, infer_schema=False).rename({"passanger": "passenger"})
    if "coupon" in frame.columns:  # the original file's names of two columns
        frame = frame.rename({"coupon": "couponType", "car": "cartype"})
    frame = frame.with_columns(
        user_id="driver" + frame.select(pl.struct(PROFILE).rank("dense")).to_series().cast(pl.String),
        # The thing offered is a coupon of a kind with a term; where and when it is shown is context.
        item_id=pl.format("{} {}", "couponType", "expiration"),
        title=pl.format("valid {}, on the way to {}, {}", "expiration", "destination", "weather"),
        category=pl.format("{} at {}", "passenger", "time"),
        order=pl.int_range(pl.len()),
    ).rename({"couponType": "scenario", "Y": "label"})
    out.mkdir(parents=True, exist_ok=True)
    frame.write_csv(out / "log.csv")
    (out / "platform.yaml").write_text(yaml.safe_dump(PLATFORM, sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), Path(sys.argv[2]))
