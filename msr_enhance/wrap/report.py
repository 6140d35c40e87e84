"""What a backbone offers: its taps with shapes, its keys, and a call of `enhance()` to copy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap.arguments import Call, as_call, named_arguments, with_argument
from msr_enhance.wrap.candidates import key_candidates, likeliest
from msr_enhance.wrap.embedding import described, leaves_of, mapped
from msr_enhance.wrap.flow import Node, reached, traced
from msr_enhance.wrap.path import Members
from msr_enhance.wrap.quiet import undisturbed
from msr_enhance.wrap.scores import scores_of
from msr_enhance.wrap.tap import Tap, in_checkpoint

_SHOWN = 40


@dataclass
class _Place:
    """One tap that could be: where, what it saw, and how much of the embeddings passes it."""

    name: str
    shape: str
    leaves: list[Tensor] = field(repr=False)
    gates: frozenset[Node] = field(repr=False)
    calls: int = 1
    stopped: int = 0
    fed: int = 0

    @property
    def width(self) -> int:
        """Of all tensors together, flattened."""
        return sum(leaf.shape[1:].numel() for leaf in self.leaves)


def report(backbone: nn.Module, example: Any) -> str:
    """Every tap that the example passes once, every key it holds, and the call to write.

    The suggested tap is the first that most embeddings pass on their way to the scores: knowledge there
    reaches all of the model.

    Args:
        backbone: Any module.
        example: A batch, as for `enhance()`. It runs once, in eval mode.
    """
    call = as_call(backbone, example)
    with undisturbed(backbone), traced(backbone) as embeddings:
        observer, result = _observed(backbone, call)
        scores = scores_of(result, embeddings)
        once = [
            place for place in observer.places.values() if place.calls == 1 and _fits(place, scores.tensors)
        ]
        everything = _measure(once, scores.tensors, embeddings)
    keys = key_candidates(
        {k: v for k, v in named_arguments(backbone, *call).items() if _shown(k, backbone, call)}
    )
    best = _best(once, everything)
    lines = ["Taps of this backbone for the example (the batch comes first):", ""]
    width = max([len(place.name) for place in once[:_SHOWN]], default=3)
    for place in once[:_SHOWN]:
        mark = "  <- all embeddings pass here" if everything and place.stopped == everything else ""
        lines.append(f"  {place.name:{width}}  {place.shape}{mark}")
    if not once:
        lines.append("  none: no module is called once with a floating tensor [batch, width]")
    if len(once) > _SHOWN:
        lines.append(f"  and {len(once) - _SHOWN} more")
    twice = [place.name for place in observer.places.values() if place.calls > 1]
    for said, names in (
        ("called more than once", twice),
        ("inside activation checkpointing", observer.hidden),
        ("named with what a tap cannot be written with (rename the module)", observer.unwritten),
    ):
        if names:
            more = ", ..." if len(names) > 8 else ""
            lines.append(f"  {said}, and so no tap: {', '.join(names[:8])}{more}")
    if best and everything and best.stopped < everything:
        lines += [
            "",
            f"No tap is passed by all embeddings on all ways; {best.name} is made of {best.fed} of "
            f"{everything} lookups, and the rest of the model reads plain embeddings.",
        ]
    listed = ", ".join(key.written for key in keys) or "none; write a function of the call's arguments"
    chosen, guessed = likeliest(keys)
    lines += ["", f"Keys: {listed}", f"It returned {described(result)}.", *scores.notes]
    lines += ["", "Write for example:", ""]
    said = ", ".join(f'"{level}": {key}' for level, key in chosen.items())
    lines.append(f'  enhance(backbone, knowledge, tap="{best.name if best else "NAME"}", keys={{{said}}},')
    lines += [f"          output={scores.output}, example=batch)", ""]
    if guessed:
        lines.append(
            f"The keys of {' and '.join(guessed)} are a guess from values, not from names: check them."
        )
    lines.append("Where integer keys are positions and not the store's ids, add vocabulary={level: ids}.")
    return "\n".join(lines)


def _shown(name: str | int, backbone: nn.Module, call: Call) -> bool:
    """Whether an argument is listed under this name: a number only where it has no other."""
    return (
        isinstance(name, str)
        or sum(value is call[0][name] for value in named_arguments(backbone, *call).values()) == 1
    )


class _Observer:
    """Passes every place of a call on as a copy, as a tap would: what reads the copy, reads the tap."""

    def __init__(self) -> None:
        self.places: dict[Tap, _Place] = {}
        self.hidden: list[str] = []
        self.unwritten: list[str] = []
        self._copied: dict[int, tuple[Tensor, Tensor]] = {}

    def saw(self, tap: Tap, value: Any) -> Any:
        """Note a place; what is to be read instead of the value."""
        leaves = leaves_of(value)
        if not leaves or len({len(leaf) for leaf in leaves}) != 1:
            return value
        if tap in self.places:
            self.places[tap].calls += 1
            return value
        if not _writable(tap):
            self.unwritten += [] if str(tap) in self.unwritten else [str(tap)]
            return value
        if in_checkpoint(None):
            self.hidden.append(str(tap))
            return value
        copies: list[Tensor] = []

        def copied(leaf: Tensor) -> Tensor:
            copies.append(leaf.clone())
            return copies[-1]

        try:
            passed = mapped(value, copied)
        except (EnhanceError, TypeError, ValueError, AttributeError):  # a container that we cannot make
            return value
        gates = frozenset(copy.grad_fn for copy in copies if copy.grad_fn is not None)
        first = [self._copied.get(id(leaf), (leaf, leaf))[0] for leaf in leaves]
        # Copies are kept, so that no later tensor gets the id of one.
        self._copied.update({id(copy): (leaf, copy) for copy, leaf in zip(copies, first, strict=True)})
        self.places[tap] = _Place(str(tap), described(value), first, gates)
        return passed

    def before(self, name: str) -> Callable[..., Any]:
        """A hook that sees what a module is given."""

        def hook(module: nn.Module, args: Any, kwargs: Any) -> Any:
            if name and len(args) == 1 and not kwargs:
                return (self.saw(Tap(name, "input", Members()), args[0]),), kwargs
            if name:
                every = self.saw(Tap(name, "input", Members()), {**dict(enumerate(args)), **kwargs})
                args, kwargs = tuple(every[n] for n in range(len(args))), {key: every[key] for key in kwargs}
            for key, value in named_arguments(module, args, kwargs).items():
                if isinstance(key, str):
                    passed = self.saw(Tap(name, "input", Members((key,))), value)
                    args, kwargs = with_argument(module, args, kwargs, key, passed)
            return args, kwargs

        return hook

    def after(self, name: str) -> Callable[..., Any]:
        """A hook that sees what a module returns."""
        return lambda _, __, result: self.saw(Tap(name, "output", Members()), result)


def _observed(backbone: nn.Module, call: Call) -> tuple[_Observer, Any]:
    """What one call passes, and its result."""
    observer, hooks = _Observer(), []
    for name, module in backbone.named_modules():
        hooks.append(module.register_forward_pre_hook(observer.before(name), with_kwargs=True))
        if name:
            hooks.append(module.register_forward_hook(observer.after(name)))
    try:
        return observer, backbone(*call[0], **call[1])
    finally:
        for hook in hooks:
            hook.remove()


def _writable(tap: Tap) -> bool:
    """Whether a tap, as it is written, is read as it was meant."""
    try:
        return Tap.parse(str(tap)) == tap
    except EnhanceError:
        return False


def _fits(place: _Place, scores: list[Tensor]) -> bool:
    """Whether a place holds a row for each score, each number once."""
    rows = {len(score) for score in scores}
    once = len({id(leaf) for leaf in place.leaves}) == len(place.leaves)
    return once and (not rows or len(place.leaves[0]) in rows)


def _measure(places: list[_Place], scores: list[Tensor], embeddings: set[int]) -> int:
    """Count the embeddings that each place stops on their way to the scores, or is fed by; and all."""
    ends = [score.grad_fn for score in scores if score.grad_fn is not None]
    every = reached(ends, embeddings)
    for place in places:
        if place.gates and not place.gates & set(ends):
            place.stopped = len(every) - len(reached(ends, embeddings, place.gates))
            place.fed = len(reached(place.gates, embeddings) & every)
    return len(every)


def _best(places: list[_Place], everything: int) -> _Place | None:
    """The first place that all embeddings pass, as one tensor if there is one; an output before an input.

    Where none is passed by all: the one made of most embeddings, the widest of those.
    """
    if not everything:  # no embeddings at all: the widest argument
        arguments = [place for place in places if place.name.startswith(":input")]
        return max(arguments, key=lambda place: place.width, default=None)
    passed = [place for place in places if place.stopped == everything]
    fed = [place for place in places if place.fed]
    passed = passed or sorted(fed, key=lambda place: (-place.fed, -place.stopped, -place.width))
    if not passed:
        return None
    # Several tensors and then one of their width: put side by side, which saves doing it again.
    first = next((p for p in passed if p.width == passed[0].width and len(p.leaves) == 1), passed[0])
    same = [
        one
        for one in places
        if ":input" not in one.name
        and len(one.leaves) == len(first.leaves)
        and all(left is right for left, right in zip(one.leaves, first.leaves, strict=True))
    ]
    return same[-1] if same else first
