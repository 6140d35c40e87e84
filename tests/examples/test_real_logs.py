"""The example scripts for real logs, on a few rows in the official layouts."""

from __future__ import annotations

import importlib
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from msr_enhance.data.columns import Columns
from msr_enhance.data.split import split_table
from msr_enhance.data.table import InteractionTable
from msr_enhance.prompts.platform import Platform

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"
ORDERED = Columns(order="order")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch):
    def load(name: str) -> ModuleType:
        monkeypatch.syspath_prepend(str(ROOT / "examples" / "real_logs"))
        return importlib.import_module(name)

    return load


def read(out: Path, columns: Columns | None = None) -> InteractionTable:
    """The log, after checking that the platform file covers its scenarios."""
    table = InteractionTable.read(out / "log.csv", columns)
    Platform.from_yaml(out / "platform.yaml").covering(table.scenarios)
    return table


# --- coupon ---------------------------------------------------------------------------------------

HEADER = (
    "destination,passanger,weather,temperature,time,couponType,expiration,gender,age,maritalStatus,has_children,"
    "education,occupation,income,cartype,Bar,CoffeeHouse,CarryAway,RestaurantLessThan20,Restaurant20To50,"
    "toCoupon_GEQ5min,toCoupon_GEQ15min,toCoupon_GEQ25min,direction_same,direction_opp,Y"
)
ANNA = (
    "Female,21,Unmarried partner,1,Some college - no degree,Unemployed,$37500 - $49999,,never,never,,4~8,1~3"
)
BERT = "Male,50plus,Single,0,Bachelors degree,Legal,$12500 - $24999,do not drive,never,less1,1~3,gt8,"


def coupon_rows(profiles: list[str], header: str = HEADER) -> str:
    lines = [header]
    for number, profile in enumerate(profiles):
        kind, label = ("Bar", "Coffee House")[number % 2], number % 3 == 0
        lines.append(f"Work,Friend(s),Sunny,55,2PM,{kind},1d,{profile},1,0,0,0,1,{int(label)}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("header", [HEADER, HEADER.replace("couponType", "coupon").replace("cartype", "car")])
def test_coupon_users_are_profiles_and_the_order_is_the_row(tmp_path: Path, example, header: str):
    profiles = [ANNA] * 3 + [BERT] * 4 + [ANNA] * 3
    text = coupon_rows(profiles, header)
    (tmp_path / "in-vehicle-coupon-recommendation.csv").write_text(text, encoding="utf-8")
    example("coupon").prepare(tmp_path, tmp_path / "out")
    table = read(tmp_path / "out", ORDERED)
    users = table.column("user_id").tolist()
    assert users == [users[0]] * 3 + [users[3]] * 4 + [users[0]] * 3
    assert len(set(users)) == 2
    assert table.order.tolist() == list(range(10))
    assert table.scenarios == ("Bar", "Coffee House")
    assert table.labels.tolist() == [float(number % 3 == 0) for number in range(10)]
    assert table.column("cartype").tolist()[:4] == [None, None, None, "do not drive"]
    assert set(table.column("category")) == {"Friend(s) at 2PM"}
    assert set(table.column("title")) == {"valid 1d, on the way to Work, Sunny"}
    assert not {"Y", "couponType", "passanger"} & set(table.frame.columns)


# --- MovieLens ------------------------------------------------------------------------------------

GENRES = ["unknown", "Action", "Comedy", "Drama", "Horror"]
FILMS = [
    ("Amélie (2001)", "Comedy", "Drama"),
    ("Heat (1995)", "Action", "Drama"),
    ("Psycho (1960)", "Horror"),
    ("Solaris (1972) (restored)", "Horror", "Drama"),
]


def write_movielens(raw: Path) -> None:
    (raw / "u.genre").write_text("".join(f"{name}|{at}\n" for at, name in enumerate(GENRES)) + "\n")
    lines = [
        f"{at}|{title}|01-Jan-1995||http://x|{'|'.join(str(int(name in has)) for name in GENRES)}"
        for at, (title, *has) in enumerate(FILMS, 1)
    ]
    (raw / "u.item").write_text("\n".join(lines) + "\n", encoding="latin-1")
    (raw / "u.user").write_text("1|24|M|technician|85711\n2|7|F|student|V5A2B\n")
    ratings = [(1, 1, 4, 900), (1, 2, 3, 901), (2, 3, 5, 902), (2, 4, 1, 903)]
    (raw / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in ratings))


def test_movielens_scenarios_titles_and_labels(tmp_path: Path, example):
    write_movielens(tmp_path)
    example("movielens").prepare(tmp_path, tmp_path / "out")
    table = read(tmp_path / "out")
    rows = table.frame.select("scenario", "title", "category", "label", "timestamp", "age", "year").rows()
    assert rows == [
        ("Comedy", "Amélie", "Comedy and Drama", 1.0, 900, "20s", 1995),
        ("Action", "Heat", "Action and Drama", 0.0, 901, "20s", 1995),
        ("Other", "Psycho", "Horror", 1.0, 902, "00s", 1995),
        ("Drama", "Solaris (1972) (restored)", "Drama and Horror", 0.0, 903, "00s", 1995),
    ]
    assert table.columns.features == ("category", "year", "age", "gender", "occupation")


def test_movielens_rating_is_no_feature(tmp_path: Path, example):
    write_movielens(tmp_path)
    example("movielens").prepare(tmp_path, tmp_path / "out")
    assert "rating" not in read(tmp_path / "out").frame.columns


# --- Amazon ---------------------------------------------------------------------------------------


def words(kind: int) -> str:
    """A text that no other kind of item shares a word with."""
    return f"brand{kind} colour{kind} shape{kind}"


def write_amazon(raw: Path) -> None:
    for start, domain in enumerate(("Beauty", "Sports", "Toys")):
        items = [f"{domain[0]}{number:02d}" for number in range(60)]
        texts = "".join(f"{item} {words(at // 2)} {domain.lower()}\n" for at, item in enumerate(items))
        (raw / f"{domain}.item_text.txt").write_text(texts)
        users = [f"A{number}" for number in range(start, start + 6)]
        lines = [f"{user} {' '.join(items[9 * at : 9 * at + 5 + at])}\n" for at, user in enumerate(users)]
        (raw / f"{domain}.user_sequence.txt").write_text("".join(lines))


def prepared(raw: Path, out: Path, example) -> InteractionTable:
    write_amazon(raw)
    example("amazon").prepare(raw, out)
    return read(out, ORDERED)


def test_amazon_keeps_every_positive_in_its_place(tmp_path: Path, example):
    table = prepared(tmp_path, tmp_path / "out", example)
    liked = table.frame.filter(pl.col("label") == 1).sort("order")
    for domain in ("Beauty", "Sports", "Toys"):
        for line in (tmp_path / f"{domain}.user_sequence.txt").read_text().splitlines():
            user, *items = line.split()
            own = liked.filter((pl.col("user_id") == user) & (pl.col("scenario") == domain))
            assert own["item_id"].to_list() == items
            assert own["order"].to_list() == list(range(len(items)))


def test_amazon_negatives_are_paired_and_never_touched(tmp_path: Path, example):
    frame = prepared(tmp_path, tmp_path / "out", example).frame
    touched, negatives = defaultdict(set), defaultdict(list)
    for user, item, domain, label, _ in frame.select(
        "user_id", "item_id", "scenario", "label", "order"
    ).iter_rows():
        assert item.startswith(domain[0])
        if label:
            touched[user, domain].add(item)
        else:
            negatives[user, domain].append(item)
    for pair, items in negatives.items():
        assert not touched[pair] & set(items)
        assert len(items) == len(set(items)) == len(touched[pair])
    pairs = frame.group_by("user_id", "scenario", "order").agg(pl.col("label").sum(), pl.len())
    assert set(pairs.select("label", "len").rows()) == {(1.0, 2)}


def test_amazon_row_order_does_not_tell_the_label(tmp_path: Path, example):
    frame = prepared(tmp_path, tmp_path / "out", example).frame
    first = frame.group_by("user_id", "scenario", "order", maintain_order=True).agg(pl.col("label").first())
    assert 0.3 < first["label"].mean() < 0.7


def test_amazon_is_the_same_every_time(tmp_path: Path, example):
    one = prepared(tmp_path, tmp_path / "one", example)
    two = prepared(tmp_path, tmp_path / "two", example)
    assert one.fingerprint() == two.fingerprint()


def test_amazon_categories_follow_the_words(example):
    texts = {f"{kind} {number}": words(kind) for kind in range(25) for number in range(4)}
    names = example("amazon").cluster_names(texts)
    by_words = defaultdict(set)
    for item, name in names.items():
        by_words[texts[item]].add(name)
        assert set(name.split()) <= set(texts[item].split())
    assert all(len(found) == 1 for found in by_words.values())
    assert len(set(names.values())) == 25


def test_amazon_user_who_has_nearly_everything_is_refused(example):
    with pytest.raises(ValueError, match="user A1 has 2 of 3 items of Toys"):
        example("amazon").interactions("Toys", {"A1": ["a", "b"], "A2": ["c"]}, ["A1"])


def test_amazon_samples_shared_and_other_users(example, monkeypatch: pytest.MonkeyPatch):
    amazon = example("amazon")
    monkeypatch.setattr(amazon, "SHARED_USERS", 3)
    monkeypatch.setattr(amazon, "OTHER_USERS", 2)
    beauty = {f"u{number}": ["a"] for number in range(10)}
    toys = {f"u{number}": ["b"] for number in range(5, 20)}
    chosen = amazon.sample_users({"Beauty": beauty, "Toys": toys})
    shared = set(beauty) & set(toys)
    assert len(chosen) == len(set(chosen)) == 5
    assert [user in shared for user in chosen] == [True, True, True, False, False]
    assert chosen == amazon.sample_users({"Toys": toys, "Beauty": beauty})


# --- the real files, where they are ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "folder", "columns", "rows", "users", "kind"),
    [
        ("coupon", "in_vehicle_coupon", ORDERED, 12_684, 567, "user"),
        ("movielens", "movielens_100k", None, 100_000, 943, "user"),
        ("amazon", "amazon2014_beauty_sports_toys", ORDERED, 128_148, 2_781, "user"),
    ],
)
def test_real_files_go_through(
    tmp_path: Path, example, name: str, folder: str, columns: Columns | None, rows: int, users: int, kind: str
):
    if not (SHARED / folder).is_dir():
        pytest.skip(f"{SHARED / folder} is not here")
    example(name).prepare(SHARED / folder, tmp_path)
    table = read(tmp_path, columns)
    assert (len(table), len(table.user_ids)) == (rows, users)
    assert split_table(table).kind == kind


@pytest.mark.slow
def test_run_and_table_go_from_raw_files_to_markdown(
    tmp_path: Path, example, monkeypatch: pytest.MonkeyPatch
):
    profiles = [profile for profile in (ANNA, BERT, ANNA.replace("21", "46")) for _ in range(60)]
    (tmp_path / "in-vehicle-coupon-recommendation.csv").write_text(coupon_rows(profiles), encoding="utf-8")
    runner, out = example("run"), tmp_path / "out"
    monkeypatch.setattr(runner, "SOURCES", {"builtin": runner.SOURCES["builtin"]})
    monkeypatch.setattr(runner, "TRAINING", {"coupon": ["--epochs", "2", "--learning-rates", "0.01"]})
    runner.run("coupon", tmp_path, out, None)
    made = {path.parent.name: path.stat().st_mtime_ns for path in (out / "results").glob("*/run.json")}
    assert set(made) == {"builtin-shared_bottom", "builtin-star"}
    text = "\n".join(example("table").report(out))
    assert "split inside each user" in text
    assert "| plain_all |" in text
    assert all(line in text for line in (out / "commands.txt").read_text().splitlines())
    runner.run("coupon", tmp_path, out, None)
    again = {path.parent.name: path.stat().st_mtime_ns for path in (out / "results").glob("*/run.json")}
    assert made == again
