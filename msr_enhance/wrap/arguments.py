"""The arguments of a module's call, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from msr_enhance.errors import EnhanceError

Call = tuple[tuple[Any, ...], dict[str, Any]]
Taken = tuple[tuple[str, inspect._ParameterKind], ...]

_AROUND = ("_orig_mod", "module", "backbone")  # torch.compile, DistributedDataParallel, an enhanced model
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_taken: WeakKeyDictionary[type[nn.Module], Taken] = WeakKeyDictionary()


# Not lru_cache: torch.compile would trace what it wraps.
@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _parameters(kind: type[nn.Module]) -> Taken:
    """Names and kinds of what the module's forward takes, without self; nothing where Python cannot tell."""
    if kind not in _taken:
        try:
            every = list(inspect.signature(kind.forward).parameters.items())[1:]
        except (TypeError, ValueError):  # a forward that is no Python function
            every = []
        _taken[kind] = tuple((name, parameter.kind) for name, parameter in every)
    return _taken[kind]


def positional_names(module: nn.Module) -> list[str]:
    """Names of the arguments that may be given by position."""
    for name in _AROUND:  # what only hands its arguments on has the names of what is inside
        inner = module._modules.get(name)
        if inner is not None and all(kind in _ANY for _, kind in _parameters(type(module))):
            return positional_names(inner)
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, kind in _parameters(type(module)) if kind in places]


def named_arguments(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str | int, Any]:
    """Every argument by its name; a positional one by its number, too."""
    found: dict[str | int, Any] = dict(zip(positional_names(module), args, strict=False))
    found.update(kwargs)
    found.update(enumerate(args))
    return found


def with_argument(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str | int | object, value: Any
) -> Call:
    """The call with one argument changed."""
    names = positional_names(module)
    if isinstance(name, str) and name not in kwargs:
        name = names.index(name)
    if isinstance(name, int):
        place = range(len(args))[name]
        return (*args[:place], value, *args[place + 1 :]), dict(kwargs)
    return args, {**kwargs, str(name): value}


def as_call(module: nn.Module, example: Any) -> Call:
    """How an example batch is passed: a tuple is the positional arguments, and a dict is one argument.

    A pair of a tuple and a dict is positional and keyword arguments; a dict whose keys are all names of
    arguments is passed as keywords.

    Raises:
        EnhanceError: The module's forward does not take these arguments.
    """
    args, kwargs = _read(module, example)
    if module._forward_pre_hooks:  # which may make other arguments of them
        return args, kwargs
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # a forward that is no Python function
        return args, kwargs
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = [type(value).__name__ for value in args] + [f"{name}=..." for name in kwargs]
        raise EnhanceError(
            f"The example is passed as {type(module).__name__}({', '.join(given)}), which forward{signature} "
            f"does not take: {error}. Allowed: a tuple of the positional arguments; a pair (a tuple, a dict) "
            "of positional and keyword arguments; a dict of keyword arguments where its keys name them; else "
            "one argument. Where a tuple and a dict are two positional arguments, write "
            "example=((A_TUPLE, A_DICT), {})."
        ) from error
    return args, kwargs


def _read(module: nn.Module, example: Any) -> Call:
    if isinstance(example, tuple):
        if len(example) == 2 and type(example[0]) is tuple and isinstance(example[1], dict):
            return example[0], dict(example[1])
        return tuple(example), {}
    if isinstance(example, dict) and example:
        kinds = _parameters(type(module))
        if set(example) <= {name for name, _ in kinds}:
            return (), dict(example)
        if not positional_names(module) and any(kind is inspect.Parameter.VAR_KEYWORD for _, kind in kinds):
            return (), dict(example)
    return (example,), {}
