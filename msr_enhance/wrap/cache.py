"""Made weights of the users who are here now: bounded, the longest unused goes first."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from msr_enhance.errors import EnhanceError

Value = TypeVar("Value")
_caches: WeakSet[WeightCache[Any]] = WeakSet()


class WeightCache(Generic[Value]):
    """Keeps the most recently used values, for many threads.

    One may be shared by several frozen models: keys hold the version of the model that made a value, so that
    a newer model never reads an older one's.

    Args:
        capacity: Users to keep. One takes 4 N bytes in float32, N the numbers of its generated weights
            (E = 128, hidden 32: 33 kB).

    Attributes:
        hits: Values that were there.
        misses: Values that were made.

    Raises:
        EnhanceError: A capacity that is no whole number of at least 1.
    """

    def __init__(self, capacity: int) -> None:
        if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 1:
            raise EnhanceError(f"capacity is {capacity!r}; allowed: 1 or more users, or cache=None.")
        self.capacity, self.hits, self.misses = capacity, 0, 0
        self._held: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()
        _caches.add(self)

    def __len__(self) -> int:
        return len(self._held)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not there; two threads may both make it, and one is kept."""
        with self._lock:
            if key in self._held:
                self.hits += 1
                self._held.move_to_end(key)
                return self._held[key]
            self.misses += 1
        value = make()
        with self._lock:
            self._held[key] = value
            self._held.move_to_end(key)
            while len(self._held) > self.capacity:
                self._held.popitem(last=False)
        return value

    def __deepcopy__(self, _: dict[int, Any]) -> WeightCache[Value]:
        return type(self)(self.capacity)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.capacity,)


def _renew() -> None:
    """In a forked process: a lock that another thread held then is never given back there."""
    for cache in _caches:
        cache._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
