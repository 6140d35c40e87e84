"""Members of values: read, and replaced in a copy."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence
from zoo_taps import KeyedTensor

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.path import leads, parse, quoted


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


class Shares(MutableMapping[str, Any]):
    """A copy of it, made by `copy.copy`, holds the very same dict."""

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data

    def __getitem__(self, name: str) -> Any:
        return self.data[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.data[name] = value

    def __delitem__(self, name: str) -> None:
        del self.data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.data)


class ReadOnly(Mapping[str, Any]):
    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data

    def __getitem__(self, name: str) -> Any:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


class Made(ReadOnly):
    """Made of something else than a dict."""

    def __init__(self, *pairs: tuple[str, Any]) -> None:
        super().__init__(dict(pairs))


@pytest.mark.parametrize("make", [Shares, ReadOnly, UserDict, MappingProxyType])
def test_a_mapping_of_an_unknown_type_is_not_changed_itself(make: Any) -> None:
    value = make({"rest": 1, "score": old})
    changed = parse("x[score]")[1].put(value, new)
    assert type(changed) is type(value)
    assert list(changed) == ["rest", "score"]
    assert changed["score"] is new
    assert changed["rest"] == 1
    assert value["score"] is old


def test_a_mapping_that_cannot_be_made_again_is_refused_by_name() -> None:
    value = Made(("rest", 1), ("score", old))
    assert parse("x[score]")[1].get(value) is old
    with pytest.raises(EnhanceError, match=r"A Made cannot be put back .* read-only, .*Allowed: dict"):
        parse("x[score]")[1].put(value, new)


@pytest.mark.parametrize("text", ["x[data]", "x[0]", "x[a][data]"])
def test_members_of_a_packed_sequence_are_refused_by_name(text: str) -> None:
    packed = pack_padded_sequence(torch.zeros(2, 3, 4), torch.tensor([3, 1]), batch_first=True)
    with pytest.raises(EnhanceError, match=r"of a PackedSequence: its data has no batch dimension"):
        parse(text)[1].get({"a": packed} if "[a]" in text else packed)


@pytest.mark.parametrize(
    ("key", "readable"),
    [("a", True), ("a:b", True), (1, True), ("1", True), ('a"b', True), ("a[b]", False), (("a", 1), False)],
)
def test_whether_a_name_can_be_written_is_known(key: Any, readable: bool) -> None:
    written = f"x[{key}]"
    assert leads(written, {"x": {key: old}}, old) == readable
    assert eval(quoted(written)) == written
