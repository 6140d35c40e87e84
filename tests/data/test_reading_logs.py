import polars as pl
import pytest

from msr_enhance.data.columns import Columns
from msr_enhance.data.table import InteractionTable
from msr_enhance.errors import DataError

HEADER = "user_id,item_id,scenario,label,timestamp"


def write(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".parquet", ".CSV"])
def test_every_format_is_the_same_table(tmp_path, small, suffix):
    path = tmp_path / f"log{suffix}"
    frame = pl.DataFrame(small)
    if suffix == ".parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="," if suffix.lower() == ".csv" else "\t")
    table = InteractionTable.read(path)
    assert table.frame.equals(InteractionTable.from_arrays(small).frame)
    assert table.name == path.name


def test_ids_stay_as_written(tmp_path):
    path = write(tmp_path, "log.csv", HEADER, "007,10,01,1,1", "7,9,1,0,2")
    table = InteractionTable.read(path)
    assert table.user_ids == ["007", "7"]
    assert table.item_ids == [9, 10]
    assert table.scenarios == ("01", "1")


def test_a_feature_that_turns_to_words_late_is_words(tmp_path):
    lines = [f"1,{item},a,1,{item},{item}" for item in range(3000)]
    path = write(tmp_path, "log.csv", f"{HEADER},size", *lines, "1,1,a,1,1,large")
    assert InteractionTable.read(path).column("size")[-1] == "large"


def test_iso_dates_are_times(tmp_path):
    path = write(tmp_path, "log.csv", HEADER, "1,1,a,1,1970-01-01 00:00:01", "1,2,a,0,1970-01-01 00:00:02")
    table = InteractionTable.read(path)
    assert table.dated
    assert table.clock.tolist() == [1_000_000, 2_000_000]


def test_an_item_table_adds_its_columns(tmp_path):
    log = write(tmp_path, "log.csv", HEADER, "1,2,a,1,1", "1,10,a,0,2", "2,2,b,1,3")
    items = write(tmp_path, "items.tsv", "item_id\ttitle\tbrand", "10\tTen\tx", "2\tTwo\ty", "other\tNo\tz")
    table = InteractionTable.read(log, items=items)
    assert table.column("title").tolist() == ["Two", "Ten", "Two"]
    assert table.columns.features == ("brand",)
    assert table.item_ids == [2, 10]


def test_an_item_twice_is_refused_by_row(tmp_path):
    log = write(tmp_path, "log.csv", HEADER, "1,2,a,1,1")
    items = write(tmp_path, "items.csv", "item_id,title", "2,Two", "3,Three", "2,Deux")
    with pytest.raises(DataError, match=r"row 3 of items.csv, column 'item_id': 2 was there before"):
        InteractionTable.read(log, items=items)


def test_an_unknown_item_is_refused_by_row(tmp_path):
    log = write(tmp_path, "log.csv", HEADER, "1,2,a,1,1", "1,4,a,1,1")
    items = write(tmp_path, "items.csv", "item_id,title", "2,Two")
    with pytest.raises(DataError, match=r"row 2 of log.csv, column 'item_id': 4 is not in items.csv"):
        InteractionTable.read(log, items=items)


def test_a_column_of_both_files_is_refused(tmp_path):
    log = write(tmp_path, "log.csv", HEADER, "1,2,a,1,1")
    items = write(tmp_path, "items.csv", "item_id,label", "2,1")
    with pytest.raises(DataError, match="both have 'label'"):
        InteractionTable.read(log, items=items)


def test_an_item_table_without_the_item_column_is_refused(tmp_path):
    log = write(tmp_path, "log.csv", HEADER, "1,2,a,1,1")
    items = write(tmp_path, "items.csv", "asin,title", "2,Two")
    with pytest.raises(DataError, match=r"items.csv has no item column 'item_id'.*'asin'"):
        InteractionTable.read(log, items=items)


def test_a_bad_row_is_named_with_the_file(tmp_path):
    lines = [f"1,{item},a,1,{item}" for item in range(16)]
    path = write(tmp_path, "log.csv", HEADER, *lines, "1,3,a,2,9")
    with pytest.raises(DataError, match=r"row 17 of log.csv, column 'label': 2"):
        InteractionTable.read(path)


def test_ids_written_as_floats_are_refused(tmp_path):
    path = write(tmp_path, "log.csv", HEADER, "1.0,3,a,1,9", "2.0,3,a,1,9")
    with pytest.raises(DataError, match=r"'user_id' holds Float64.*Cast"):
        InteractionTable.read(path)


def test_unreadable_files_say_why(tmp_path):
    with pytest.raises(DataError, match="no file"):
        InteractionTable.read(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"file suffix '.json' is not known; allowed: .*'.csv'"):
        InteractionTable.read(tmp_path / "log.json")
    with pytest.raises(DataError, match=r"log.csv cannot be read as csv"):
        InteractionTable.read(write(tmp_path, "log.csv", "a,b", "1,2,3"))
    (tmp_path / "latin.csv").write_bytes(HEADER.encode() + b"\n1,caf\xe9,a,1,1\n")
    with pytest.raises(DataError, match=r"latin.csv cannot be read.*UTF-8"):
        InteractionTable.read(tmp_path / "latin.csv")
    (tmp_path / "empty.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty.parquet cannot be read"):
        InteractionTable.read(tmp_path / "empty.parquet")


def test_named_columns_of_a_file(tmp_path):
    path = write(tmp_path, "log.csv", "uid,item_id,scenario,label,step", "1,2,a,1,1")
    table = InteractionTable.read(path, Columns.from_options(["user=uid", "order=step"]))
    assert table.user_ids == [1]
    assert table.time is None
