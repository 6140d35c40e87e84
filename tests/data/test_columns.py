import pytest

from msr_enhance.data.columns import Columns
from msr_enhance.errors import DataError

CORE = ("user_id", "item_id", "scenario", "label", "timestamp")


def test_defaults_count_only_where_the_log_has_them():
    columns = Columns().resolve([*CORE, "age", "category"])
    assert columns.time == "timestamp"
    assert columns.text == ("category",)
    assert columns.category == "category"
    assert columns.features == ("age", "category")


def test_the_title_is_text_only_and_the_category_is_both():
    columns = Columns().resolve(["category", "title", *CORE, "age"])
    assert columns.text == ("title", "category")
    assert columns.features == ("category", "age")


def test_the_category_closes_the_text():
    named = Columns(category="genre", text=("genre", "brand")).resolve([*CORE, "brand", "genre"])
    assert named.text == ("brand", "genre")
    assert Columns(category="genre").resolve([*CORE, "title", "genre"]).text == ("title", "genre")


def test_resolving_twice_changes_nothing():
    log = [*CORE, "title", "category", "age"]
    once = Columns().resolve(log)
    assert once.resolve(log) == once


@pytest.mark.parametrize(
    "named", [{"time": "when"}, {"text": ("brand",)}, {"category": "genre"}, {"user": "uid"}]
)
def test_an_explicit_column_must_be_there(named):
    (role,) = named
    with pytest.raises(DataError, match=rf"no {role} column .*its columns are.*--column {role}=NAME"):
        Columns(**named).resolve([*CORE, "title"])


def test_a_default_named_explicitly_must_be_there():
    with pytest.raises(DataError, match="no time column 'timestamp'"):
        Columns(time="timestamp", order="step").resolve([*CORE[:4], "step"])


@pytest.mark.parametrize("gone", CORE[:4])
def test_a_missing_required_column_is_named_with_what_was_seen(gone):
    with pytest.raises(DataError, match=f"'{gone}'") as error:
        Columns().resolve([name for name in (*CORE, "age") if name != gone])
    assert "'age'" in str(error.value)


def test_a_log_without_time_or_order_is_refused():
    with pytest.raises(DataError, match=r"without time or order.*--column order=NAME"):
        Columns().resolve(CORE[:4])
    assert Columns(order="step").resolve([*CORE[:4], "step"]).time is None


@pytest.mark.parametrize(
    "named",
    [
        {"item": "user_id"},
        {"order": "timestamp"},
        {"text": ("label",)},
        {"features": ("label",)},
        {"category": "item_id"},
    ],
)
def test_a_column_has_one_role(named):
    with pytest.raises(DataError, match="has one role"):
        Columns(**named).resolve(CORE)


def test_options_of_the_command_line():
    columns = Columns.from_options(["user=uid", "order=step", "text=title, brand", "time="])
    assert (columns.user, columns.order, columns.text, columns.time) == (
        "uid",
        "step",
        ("title", "brand"),
        None,
    )
    assert columns.model_fields_set == {"user", "order", "text", "time"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["usr=uid"], "column role 'usr' is not known.*Did you mean 'user'"),
        (["user"], "--column user=NAME"),
        (["user="], "--column user=NAME"),
        (["user=a", "user=b"], "given twice"),
    ],
)
def test_a_bad_option_says_what_to_write(options, message):
    with pytest.raises(DataError, match=message):
        Columns.from_options(options)
