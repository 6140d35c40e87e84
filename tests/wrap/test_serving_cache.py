"""Made weights: of one version of the model, of full precision, and free of whoever held them before."""

from __future__ import annotations

import copy
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from in_house import InHouse, batch, shake, wrap
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError
from msr_enhance.wrap import who
from msr_enhance.wrap.cache import WeightCache
from msr_enhance.wrap.serving import ServingModel


def request(user: int = 3) -> dict[str, Tensor]:
    return batch(9) | {"user": torch.full((9,), user), "scenario": torch.full((9,), 1)}


@pytest.mark.parametrize("capacity", [0, -1, True, False, "10", 2.0, [3]], ids=repr)
def test_a_cache_of_no_size(capacity: Any) -> None:
    model = wrap(InHouse().eval())
    for make in (lambda: model.freeze(cache=capacity), lambda: WeightCache(capacity)):
        with pytest.raises(EnhanceError, match=r"capacity is .*; allowed: 1 or more users, or cache=None"):
            make()


def loaded(serving: ServingModel) -> None:
    state = serving.state_dict()
    serving.load_state_dict({name: one * 1.5 if "layers" in name else one for name, one in state.items()})


@pytest.mark.parametrize(
    "change",
    [loaded, lambda serving: serving.double(), lambda serving: serving.bfloat16()],
    ids=["load_state_dict", "double", "bfloat16"],
)
def test_weights_are_made_anew_when_all_of_the_model_changes(change: Callable[[ServingModel], Any]) -> None:
    model = shake(wrap(InHouse().eval()))
    cached, plain = model.freeze(cache=4), model.freeze()
    before = cached(request())
    for serving in (cached, plain):
        change(serving)
    after = cached(request())
    assert torch.equal(after, plain(request()))
    assert not torch.equal(after.float(), before)


def test_a_model_that_was_copied_has_a_cache_and_a_version_of_its_own() -> None:
    serving = shake(wrap(InHouse().eval())).freeze(cache=4)
    before = serving(request())
    twin = copy.deepcopy(serving)
    assert len(twin.cache) == 0
    loaded(twin)
    assert not torch.equal(twin(request()), before)
    assert torch.equal(serving(request()), before)


def test_what_was_made_under_autocast_is_not_rounded() -> None:
    model = shake(wrap(InHouse().eval()))
    expected = model.freeze()(request())
    cached = model.freeze(cache=4)
    with torch.autocast("cpu"):
        cached(request())
        frozen_inside = model.freeze()
    assert torch.equal(cached(request()), expected)
    assert torch.equal(frozen_inside(request()), expected)
    assert cached.cache.hits == 1


def test_what_was_made_in_inference_mode_has_a_place_in_any_graph() -> None:
    class Learning(InHouse):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return super().forward(batch) + self.extra

    backbone = Learning().eval()
    backbone.extra = nn.Parameter(torch.zeros(()))
    model = shake(wrap(backbone))
    serving = model.freeze(cache=4)
    with torch.inference_mode():
        serving(request())
        inside = model.freeze(cache=4)
        inside(request())
    for one in (serving, inside):
        one.backbone.items.weight.requires_grad_(True)
        one(request()).sum().backward()
        assert one.backbone.items.weight.grad.abs().sum() > 0
        assert one.cache.hits == 1


@pytest.fixture
def one_thread() -> Iterator[None]:
    """OpenMP's threads do not survive a fork, and torch would wait for them: that is not what is tested."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_fork_while_another_thread_holds_the_locks() -> None:
    serving = shake(wrap(InHouse().eval())).freeze(cache=4)
    expected = serving(request())
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with serving.cache._lock, who._counting:
            held.set()
            over.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that a fork beside threads is what it is
        child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(serving(request()), expected) else 1)
    over.set()
    thread.join()
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("the forked process waits for a lock that nobody will give back")
    assert os.waitstatus_to_exitcode(status) == 0
