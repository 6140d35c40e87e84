"""Rows given instead of keys: what is refused, what is counted, and what an exported program does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from in_house import DIM, KEYS, SCENARIOS, InHouse, batch, knowledge, shake, wrap
from torch import Tensor

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.wrap.serving import ServingModel

FEW = knowledge() | {"user": (list(range(5)), knowledge()["user"][1][:5])}
EVERYBODY = {"user": list(range(20)), "scenario": SCENARIOS}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def rows_for(serving: ServingModel, data: dict[str, Tensor]) -> dict[str, Tensor]:
    return {level: serving.rows_of(level, data[level]) for level in KEYS}


def exported(serving: ServingModel, data: dict[str, Tensor], rows: dict[str, Tensor]) -> Any:
    size = torch.export.Dim("batch", min=2, max=4096)
    shapes = {"args": ({name: {0: size} for name in data},), "rows": {level: {0: size} for level in rows}}
    return torch.export.export(serving, (data,), {"rows": rows}, dynamic_shapes=shapes).module()


def test_an_exported_program_reads_rows_and_the_backbone_its_own_arguments() -> None:
    model = shake(wrap(InHouse().eval(), vocabulary=EVERYBODY))
    serving = model.freeze()
    example = batch()
    program = exported(serving, example, rows_for(serving, example))
    data, others = batch(30), rows_for(serving, batch(30, seed=1))
    torch.testing.assert_close(program(data, rows=others), serving(data, rows=others), **CLOSE)
    assert not torch.allclose(serving(data, rows=others), serving(data))


def test_rows_in_an_exported_program_do_not_wrap_around() -> None:
    model = shake(wrap(InHouse().eval(), vocabulary=EVERYBODY, unknown={"scenario": "zero"}))
    serving = model.freeze()
    program = exported(serving, batch(), rows_for(serving, batch()))
    data = batch(6)
    users = serving.rows_of("user", data["user"])

    def scored(by: Any, row: int) -> Tensor:
        return by(data, rows={"user": users, "scenario": torch.full((6,), row)})

    unknown = scored(serving, -1)
    for row in (-1, -3, -4, 3, 4, 5, 7, 100):
        torch.testing.assert_close(scored(program, row), unknown, **CLOSE)
    for row in range(3):
        torch.testing.assert_close(scored(program, row), scored(serving, row), **CLOSE)
        assert not torch.allclose(scored(serving, row), unknown)
    with_users = program(data, rows={"user": users + 20, "scenario": torch.zeros(6, dtype=torch.int64)})
    strangers = {"user": torch.full((6,), -1), "scenario": torch.zeros(6, dtype=torch.int64)}
    torch.testing.assert_close(with_users, serving(data, rows=strangers), **CLOSE)


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({"user": torch.zeros(12)}, r"rows of user are float32 \[12\]; allowed: an integer tensor"),
        ({"user": torch.zeros(12, dtype=torch.bool)}, r"rows of user are bool \[12\]"),
        ({"user": torch.zeros(12, 1, dtype=torch.int64)}, r"rows of user are int64 \[12, 1\]"),
        ({"user": torch.tensor(3)}, r"rows of user are int64 \[\]"),
        ({"user": torch.zeros(12, DIM)}, "rows of user are float32"),
        ({"user": None}, "rows of user are NoneType"),
        ({"user": [1] * 12}, "rows of user are list"),
        ({"user": torch.full((12,), 20)}, "user row 20 is not in a table of 20; allowed: 0 to 19, or -1"),
        ({"user": torch.full((12,), -2)}, "user row -2 is not in a table"),
        ({"scenario": torch.full((12,), -1)}, "scenario '-1' is not known"),
        ({"user": torch.zeros(5, dtype=torch.int64)}, "5 user keys for a batch of 12 rows"),
        ({"usr": torch.zeros(12, dtype=torch.int64)}, "level of rows 'usr' is not known"),
        ([1], r"rows is list.*; allowed: \{level: rows\}"),
    ],
)
def test_rows_that_are_none(rows: Any, match: str) -> None:
    serving = shake(wrap(InHouse().eval())).freeze(cache=2)
    with pytest.raises((EnhanceError, UnknownIdError), match=match):
        serving(batch(), rows=rows)
    assert serving.unknown_counts() == {"scenario": 0, "user": 0}


@pytest.mark.parametrize("vector", [torch.zeros(12, DIM - 1), torch.zeros(12, dtype=torch.int64), None])
def test_vectors_that_are_none(vector: Any) -> None:
    keys = {"scenario": "scenario"}
    serving = shake(wrap(InHouse().eval(), keys=keys, vectors={"user": "state"})).freeze()
    with pytest.raises(EnhanceError, match=rf"user vectors are .*a floating tensor \[batch, {DIM}\]"):
        serving(batch(), rows={"user": vector})


def test_rows_of_any_integer_type_and_one_row_for_all() -> None:
    model = shake(wrap(InHouse().eval()))
    serving, data = model.freeze(), batch()
    for dtype in (torch.int8, torch.uint8, torch.int32, torch.int64):
        rows = {level: found.to(dtype) for level, found in rows_for(serving, data).items()}
        torch.testing.assert_close(serving(data, rows=rows), model(data), **CLOSE)
    one = data | {"user": torch.full((12,), 3)}
    torch.testing.assert_close(serving(one, rows={"user": torch.tensor([3])}), model(one), **CLOSE)


def test_only_a_level_in_rows_may_be_one_for_all() -> None:
    serving, data = shake(wrap(InHouse().eval())).freeze(), batch()
    with pytest.raises(EnhanceError, match=r"1 scenario keys for a batch of 12 rows; .* or \[1\] in rows="):
        serving(data | {"scenario": torch.tensor([1])}, rows={"user": torch.tensor([3])})


def test_rows_without_a_vector_are_counted_once_or_refused() -> None:
    model = shake(wrap(InHouse().eval(), knowledge=FEW, vocabulary=EVERYBODY))
    serving, data = model.freeze(), batch(30)
    strangers = int((data["user"] >= 5).sum())
    torch.testing.assert_close(serving(data, rows=rows_for(serving, data)), model(data), **CLOSE)
    assert serving.unknown_counts() == {"scenario": 0, "user": strangers}
    serving(data, rows={"user": torch.full((30,), -1)})
    assert serving.unknown_counts()["user"] == strangers + 30
    strict = wrap(InHouse().eval(), knowledge=FEW, unknown={"user": "error"}).freeze()
    with pytest.raises(UnknownIdError, match="user '-1'"):
        strict(batch(4), rows={"user": torch.tensor([0, 1, -1, 2])})


def test_rows_of_names_what_is_not_known() -> None:
    serving = wrap(InHouse().eval()).freeze()
    with pytest.raises(EnhanceError, match="level 'item' is not known; allowed: 'scenario', 'user'"):
        serving.rows_of("item", torch.tensor([1]))
    with pytest.raises(UnknownIdError, match="scenario key 3"):
        serving.rows_of("scenario", torch.tensor([3]))
