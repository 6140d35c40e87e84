"""What cannot be tapped or passed is said by name, and never suggested."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from test_report import knowledge, pasted, reported, suggested
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from zoo_case import ITEMS, Base, raw

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.arguments import as_call
from msr_enhance.wrap.enhance import enhance

KEYS = {"user": "user", "scenario": "scenario"}
PARALLEL = {"user": "parallel", "scenario": "parallel"}


class Named(Base):
    """Every embedding comes out of a module with an awkward name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.parts, self.name = nn.ModuleDict({name: self.concat}), name
        del self.concat

    def forward(self, data: Any) -> Tensor:
        e = self.parts[self.name](self.users(data["user"]), self.items(data["item"]))
        return self.deep(e).squeeze(1)


@pytest.mark.parametrize("name", ["user:id", "user[id]", "user:input", "a:output"])
def test_a_suggested_tap_can_be_written(name: str) -> None:
    backbone, data = Named(name).eval(), raw()
    text = reported(backbone, data)
    pasted(text, backbone, data, knowledge())(data)
    if f'tap="parts.{name}' not in text:
        assert 'tap="deep:input"' in text
        assert re.search(rf"cannot be written with .*parts\.{re.escape(name)}", text)


class Frozen(Mapping[str, Any]):
    """A read-only batch that nothing but its own maker makes."""

    def __init__(self, *pairs: tuple[str, Any]) -> None:
        self._data = dict(pairs)

    def __getitem__(self, name: str) -> Any:
        return self._data[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)


class Remade(Frozen):
    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__(*data.items())


class Lookup(nn.Module):
    def __init__(self, kind: Any, users: nn.Module, items: nn.Module) -> None:
        super().__init__()
        self.kind, self.users, self.items = kind, users, items

    def forward(self, data: Any) -> Any:
        found = {"user": self.users(data["user"]), "item": self.items(data["item"])}
        return Frozen(*found.items()) if self.kind is Frozen else self.kind(found)


class ReadsMapping(Base):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.lookup = Lookup(kind, self.users, self.items)

    def forward(self, data: Any) -> Tensor:
        found = self.lookup(data)
        return self.deep(torch.cat([found["user"], found["item"]], 1)).squeeze(1)


@pytest.mark.parametrize("tap", ["lookup", "lookup[user]"])
def test_a_read_only_mapping_at_the_tap_is_made_anew_or_refused_by_name(tap: str) -> None:
    for placement in (None, PARALLEL):
        backbone, data = ReadsMapping(Remade).eval(), raw()
        model = enhance(backbone, knowledge(), tap=tap, keys=KEYS, placement=placement, example=data)
        assert torch.equal(model.eval()(data), backbone(data))
        with pytest.raises(EnhanceError, match=r"A Frozen cannot be put back .* tap='NAME:input'"):
            enhance(ReadsMapping(Frozen), knowledge(), tap=tap, keys=KEYS, placement=placement, example=data)


class Packed(nn.Module):
    """A recurrent network over packed steps."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, 3)
        self.pack, self.rnn, self.head = Pack(), nn.GRU(3, 4, batch_first=True), nn.Linear(4, 1)

    def forward(self, data: Any) -> Tensor:
        _, last = self.rnn(self.pack(self.items(data["item"])))
        return self.head(last[0]).squeeze(1)


class Pack(nn.Module):
    def forward(self, steps: Tensor) -> PackedSequence:
        lengths = torch.arange(len(steps)) % 3 + 1
        return pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)


@pytest.mark.parametrize("tap", ["pack", "rnn", "rnn:input", "pack[data]", "rnn[0]"])
def test_a_packed_sequence_at_the_tap_is_refused_by_name(tap: str) -> None:
    data = raw()
    data["item"] = data["item"].unsqueeze(1).expand(-1, 3)
    with pytest.raises(
        EnhanceError, match=r"PackedSequence: its data has no batch dimension.*after the pooling"
    ):
        enhance(Packed(), knowledge(), tap=tap, keys=KEYS, placement=PARALLEL, example=data)
    text = reported(Packed(), data)
    assert f'tap="{tap}"' not in suggested(text)
    assert re.search(r"^  head:input +float32 \[12, 4\]", text, re.M)
    assert not re.search(r"^  (pack|rnn:input) ", text, re.M)


class TwoArguments(Base):
    def forward(self, ids: Any, extra: dict[str, Tensor]) -> Tensor:
        return super().forward({"user": ids[0], "item": ids[1]}) + extra["scenario"]


def test_an_example_that_forward_does_not_take_says_how_examples_are_passed() -> None:
    data = raw()
    ids, extra = (data["user"], data["item"]), {"scenario": data["scenario"]}
    for more in ({}, {"tap": "concat", "keys": {"user": "ids[0]", "scenario": "scenario"}}):
        with pytest.raises(EnhanceError, match=r"does not take: .*example=\(\(A_TUPLE, A_DICT\), \{\}\)"):
            enhance(TwoArguments(), knowledge(), **more, example=(ids, extra))
    assert "concat" in reported(TwoArguments(), ((ids, extra), {}))
    with pytest.raises(EnhanceError, match="TwoArguments\\(Tensor, Tensor, Tensor\\)"):
        as_call(TwoArguments(), (data["user"],) * 3)


def test_a_hook_may_make_other_arguments_of_an_example() -> None:
    backbone, data = TwoArguments(), raw()
    backbone.register_forward_pre_hook(lambda _, args: ((args[0]["user"], args[0]["item"]), args[0]))
    assert as_call(backbone, data) == ((data,), {})
    assert "concat" in reported(backbone, data)


def test_an_error_inside_forward_is_not_called_a_wrong_example() -> None:
    class Broken(Base):
        def forward(self, data: Any) -> Tensor:
            raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        enhance(Broken(), knowledge(), example=raw())


def test_keys_whose_names_cannot_be_written_are_not_suggested() -> None:
    data = raw()

    class Odd(Base):
        def forward(self, data: Any) -> Tensor:
            return super().forward({"user": data["user[id]"], "item": data["item"]})

    odd = {
        "user[id]": data["user"],
        "item": data["item"],
        "scenario": data["scenario"],
        'q"user': data["user"],
    }
    text = reported(Odd(), odd)
    assert "user[id]" not in text[text.index("Keys:") :]
    assert """"user": 'data[q"user]'""" in text
    pasted(text, Odd().eval(), odd, knowledge())(odd)
