"""Members of values: read, and replaced in a copy."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from zoo_taps import KeyedTensor

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.path import parse


@dataclasses.dataclass(frozen=True)
class Record:
    score: Any
    rest: int = 1


class Pair(NamedTuple):
    score: Any
    rest: int = 1


old, new = torch.zeros(3), torch.ones(3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x[score]", {"score": old, "rest": 1}),
        ("x['score']", OrderedDict(score=old, rest=1)),
        ("x[1]", {"1": old}),
        ("x[1]", {1: old}),
        ("x[0]", (old, 1)),
        ("x[-1]", [1, old]),
        ("x[score]", Record(old)),
        ("x[score]", Pair(old)),
        ("x[0]", Pair(old)),
        ("x[a][0][score]", {"a": [Record(old)], "b": 2}),
    ],
)
def test_a_member_is_read_and_replaced_in_a_copy(text: str, value: Any) -> None:
    name, members = parse(text)
    assert name == "x"
    assert members.get(value) is old
    changed = members.put(value, new)
    assert type(changed) is type(value)
    assert members.get(changed) is new
    assert members.get(value) is old
    assert members.put(changed, old) == value


@pytest.mark.parametrize("column", [0, 2, -1, -3])
def test_a_column_is_read_and_replaced(column: int) -> None:
    value = torch.arange(12.0).view(4, 3)
    members = parse(f"x[:,{column}]")[1]
    assert torch.equal(members.get(value), value[:, column])
    expected = value.clone()
    expected[:, column] = 7
    assert torch.equal(members.put(value, torch.full((4,), 7.0)), expected)
    assert value.max() == 11


def test_a_keyed_tensor_gets_one_embedding_changed() -> None:
    value = KeyedTensor(["a", "b"], [2, 1], torch.arange(9.0).view(3, 3))
    members = parse("x[b]")[1]
    changed = members.put(value, torch.full((3, 1), 5.0))
    assert changed.keys() == ["a", "b"]
    assert changed.values()[:, 2].tolist() == [5, 5, 5]
    assert torch.equal(changed.values()[:, :2], value.values()[:, :2])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x[", "names nothing"),
        ("x]y", "names nothing"),
        ("x[:,a]", "a column is a number"),
        ("x[:,0][a]", "a column has no members"),
    ],
)
def test_what_is_not_of_the_form_is_refused(text: str, message: str) -> None:
    with pytest.raises(EnhanceError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value", "message"),
    [
        ("x[scores]", {"score": old}, "member 'scores' is not known; allowed: 'score'"),
        ("x[2]", (old, 1), "allowed: '0', '1'"),
        ("x[a]", old, "none, of Tensor"),
        ("x[:,3]", torch.zeros(2, 3), r"\[:,3\] of shape \(2, 3\)"),
        ("x[:,0]", old, r"\[:,0\] of shape \(3,\)"),
        ("x[:,0]", {"a": 1}, r"\[:,0\] of dict"),
    ],
)
def test_steps_that_lead_nowhere_list_what_is_there(text: str, value: Any, message: str) -> None:
    with pytest.raises(EnhanceError, match=message):
        parse(text)[1].get(value)
