"""The frozen model: the same scores as the live one, from any thread, exported and cached."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest
import torch
from in_house import DIM, KEYS, PLACEMENTS, SCENARIOS, InHouse, batch, knowledge, shake, wrap
from torch import Tensor, nn

from msr_enhance.errors import EnhanceError, UnknownIdError
from msr_enhance.meta.config import MetaConfig
from msr_enhance.wrap.cache import WeightCache
from msr_enhance.wrap.model import EnhancedModel
from msr_enhance.wrap.serving import ServingModel

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
METAS = [
    MetaConfig(rank=3),
    MetaConfig(rank=3, path="gen"),
    MetaConfig(rank=2, projection="frozen"),
    MetaConfig(rank=None),
    MetaConfig(rank=3, fidelity="paper", layers=3),
]


def request(rows: int = 9, user: int = 3, scenario: int = 1) -> dict[str, Tensor]:
    """One user's candidates."""
    one = batch(rows)
    return one | {"user": torch.full((rows,), user), "scenario": torch.full((rows,), scenario)}


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("meta", METAS, ids=str)
def test_scores_as_the_live_model(placement: dict[str, Any], meta: MetaConfig) -> None:
    model = shake(wrap(InHouse().eval(), placement=placement, meta=meta))
    for serving in (model.freeze(), model.freeze(cache=4)):
        for data in (batch(0), batch(1), batch(5), batch(40), request(), request(1)):
            for _ in range(2):  # the second time from the cache
                torch.testing.assert_close(serving(data), model(data), **CLOSE)
        data = request()
        rows = {level: serving.rows_of(level, data[level][:1]) for level in model.branches}
        torch.testing.assert_close(serving(data, rows=rows), model(data), **CLOSE)


def test_it_is_a_copy_without_hooks_gradients_or_training_mode() -> None:
    model = shake(wrap(InHouse().eval()))
    serving = model.freeze()
    before = serving(batch())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in serving.modules())
    assert not any(weight.requires_grad for weight in serving.parameters())
    assert not serving.train().training
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert torch.equal(serving(batch()), before)
    assert not torch.allclose(model(batch()), before)
    assert torch.equal(copy.deepcopy(serving)(batch()), before)
    assert not serving(batch()).requires_grad


def test_threads_share_one_serving_model_and_its_cache() -> None:
    model = shake(wrap(InHouse().eval()))
    serving = model.freeze(cache=3)
    data = [request(12, user=number, scenario=number % 3) for number in range(8)]
    expected = [model(one) for one in data]
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(40):
            place = (number + turn) % 8
            if not torch.allclose(serving(data[place]), expected[place], **CLOSE):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(serving.cache) == 3
    assert serving.cache.hits + serving.cache.misses == 320


def test_a_cache_shared_by_two_versions_keeps_them_apart() -> None:
    cache: WeightCache[Any] = WeightCache(10)
    model = shake(wrap(InHouse().eval()))
    old = model.freeze(cache=cache)
    before = old(request())
    with torch.no_grad():
        for weight in model.meta.parameters():
            weight.mul_(1.5)
    new = model.freeze(cache=cache)
    torch.testing.assert_close(new(request()), model(request()), **CLOSE)
    assert torch.equal(old(request()), before)
    assert not torch.allclose(new(request()), before)
    assert (cache.hits, cache.misses, len(cache)) == (2, 2, 2)
    newer = model.freeze(cache=cache)  # the same weights again are the same version
    newer(request())
    assert cache.hits == 3
    with pytest.raises(EnhanceError, match="capacity is 0"):
        model.freeze(cache=0)


def test_a_cache_forgets_who_was_away_longest() -> None:
    cache: WeightCache[int] = WeightCache(2)
    made: list[str] = []

    def make(name: str) -> int:
        made.append(name)
        return len(made)

    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(name, lambda name=name: make(name))
    assert made == ["a", "b", "c", "b"]
    assert (cache.hits, cache.misses, len(cache)) == (2, 4, 2)


def test_unknown_users_are_counted_and_unknown_scenarios_refused() -> None:
    few = knowledge() | {"user": (list(range(5)), knowledge()["user"][1][:5])}
    vocabulary = {"user": list(range(20)), "scenario": SCENARIOS}
    model = shake(wrap(InHouse().eval(), knowledge=few, vocabulary=vocabulary))
    serving = model.freeze()
    data = batch(30)
    torch.testing.assert_close(serving(data), model(data), **CLOSE)
    assert serving.unknown_counts() == {"scenario": 0, "user": int((data["user"] >= 5).sum())}
    with pytest.raises(UnknownIdError, match="scenario key 3"):
        serving(data | {"scenario": torch.full((30,), 3)})
    with pytest.raises(EnhanceError, match="level of rows 'usr'"):
        serving(data, rows={"usr": data["user"]})


class Deep(nn.Module):
    """A tap deep inside, next to attributes that its parents read."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.ModuleDict({"inner": nn.ModuleList([InHouse()])})

    def forward(self, call: dict[str, Tensor], dense: Tensor) -> dict[str, Tensor]:
        part = self.body["inner"][0]
        e = part.concat(part.users(call["user"]), part.items(call["item"])) + dense
        return {"score": part.deep(e) * part.deep[0].weight.abs().mean()}


@pytest.mark.parametrize("tap", ["body.inner.0.concat", "body.inner.0.deep:input", ":input[dense]"])
def test_taps_deep_inside_at_inputs_and_at_arguments(tap: str) -> None:
    torch.manual_seed(0)
    dense = torch.randn(12, 6)
    model = wrap(Deep().eval(), tap=tap, output="logit[score]", example=(batch(), dense))
    shake(model)
    with model.disabled():
        plain = model(batch(), dense)["score"]
    serving = model.freeze()
    torch.testing.assert_close(serving(batch(), dense)["score"], model(batch(), dense)["score"], **CLOSE)
    assert not torch.allclose(serving(batch(), dense)["score"], plain)


def test_vectors_of_the_batch() -> None:
    vectors = torch.from_numpy(knowledge()["user"][1])
    keys = {"scenario": "scenario"}
    model = shake(wrap(InHouse().eval(), keys=keys, vectors={"user": "state"}))
    serving = model.freeze()
    data = batch() | {"state": vectors[batch()["user"]]}
    data["state"][0] = 0
    torch.testing.assert_close(serving(data), model(data), **CLOSE)
    one = request() | {"state": vectors[3].expand(9, DIM)}
    torch.testing.assert_close(serving(one, rows={"user": vectors[3:4]}), model(one), **CLOSE)


def exported(serving: ServingModel, rows: bool) -> torch.export.ExportedProgram:
    size = torch.export.Dim("batch", min=2, max=4096)
    data = batch()
    shapes: dict[str, Any] = {"args": ({name: {0: size} for name in data},)}
    more: dict[str, Any] = {}
    if rows:
        more["rows"] = {level: serving.rows_of(level, data[level]) for level in KEYS}
        shapes["rows"] = {level: {0: size} for level in KEYS}
    return torch.export.export(serving, (data,), more, dynamic_shapes=shapes)


def trained(**options: Any) -> EnhancedModel:
    ids = {"user": list(range(20)), "scenario": SCENARIOS}
    return shake(wrap(InHouse().eval(), vocabulary=ids, **options))


@pytest.mark.parametrize("rank", [3, None])
@pytest.mark.parametrize("rows", [False, True])
def test_an_exported_program_agrees(rank: int | None, rows: bool) -> None:
    model = trained(meta=MetaConfig(rank=rank))
    serving = model.freeze()
    program = exported(serving, rows).module()
    for data in (batch(30), batch(2)):
        more = {"rows": {level: serving.rows_of(level, data[level]) for level in KEYS}} if rows else {}
        torch.testing.assert_close(program(data, **more), model(data), **CLOSE)


def test_one_users_request_is_exported_with_one_row() -> None:
    model = trained()
    serving, size = model.freeze(), torch.export.Dim("batch", min=2, max=4096)
    rows = {level: torch.tensor([1]) for level in KEYS}
    shapes = {"args": ({name: {0: size} for name in batch()},), "rows": dict.fromkeys(KEYS)}
    program = torch.export.export(serving, (batch(),), {"rows": rows}, dynamic_shapes=shapes).module()
    data = request(25)
    asked = {level: serving.rows_of(level, data[level][:1]) for level in KEYS}
    torch.testing.assert_close(program(data, rows=asked), model(data), **CLOSE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compilers' own
def test_a_compiled_package_and_onnx_agree(tmp_path: Any) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = trained()
    serving = model.freeze()
    data, program = batch(30), exported(serving, rows=True)
    rows = {level: serving.rows_of(level, data[level]) for level in KEYS}
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(tmp_path / "model.pt2"))
    compiled = torch._inductor.aoti_load_package(package)
    torch.testing.assert_close(compiled(data, rows=rows), model(data), **CLOSE)
    made = torch.onnx.export(program, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString())
    flat = {f"args_0_{name}": values for name, values in data.items()}
    flat |= {f"rows_{level}": values for level, values in rows.items()}
    asked = {one.name: flat[one.name].numpy() for one in session.get_inputs()}
    scores = torch.from_numpy(session.run(None, asked)[0])
    torch.testing.assert_close(scores, model(data), rtol=1e-4, atol=1e-5)


def test_exporting_the_live_model_names_freeze() -> None:
    with pytest.raises(EnhanceError, match=r"Export model\.freeze\(\) instead"):
        torch.export.export(trained(), (batch(),))


def test_newer_knowledge_serves_a_new_scenario_by_its_vector_alone() -> None:
    model = shake(wrap(InHouse().eval()))
    old = model.freeze()
    draw = np.random.default_rng(7)
    before = model(batch())
    more = knowledge()
    names, vectors = more["scenario"]
    fresh = vectors[0] * 0.7 + vectors[1] * 0.3 + draw.normal(size=DIM).astype(np.float32) * 0.01
    more["scenario"] = ([*names, "live"], np.concatenate([vectors, fresh[None]]))
    model.refresh(more, vocabulary={"scenario": [*SCENARIOS, "live"]})
    torch.testing.assert_close(model(batch()), before, **CLOSE)
    new = batch() | {"scenario": torch.full((12,), 3)}
    scores = model(new)
    assert torch.isfinite(scores).all()
    assert not torch.allclose(scores, model(batch() | {"scenario": torch.full((12,), 0)}))
    torch.testing.assert_close(model.freeze()(new), scores, **CLOSE)
    with pytest.raises(UnknownIdError, match="scenario key 3"):
        old(new)
    with pytest.raises(EnhanceError, match="scenario keys are positions"):
        model.refresh(more)
