"""Parts made by Ray actors; a real local cluster of two, one of which is killed in the middle of a part."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest
from part_reads import Reader, Reads, table
from part_works import Notes

from msr_enhance.errors import ModelError, MsrEnhanceError
from msr_enhance.extract.extractor import KnowledgeExtractor
from msr_enhance.scale import ray_actors
from msr_enhance.scale.engine import run_parts
from msr_enhance.scale.handout import Handout, Task
from msr_enhance.scale.part import Part
from msr_enhance.scale.parts_folder import PartsFolder

HERE = Path(__file__).parent


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModelError, match=r"pip install 'msr-enhance\[ray\]'.*--engine processes"):
        run_parts(Notes(), tmp_path / "s", parts=2, engine="ray")


@pytest.fixture
def cluster(monkeypatch):
    """Workers that can import what stands beside this file, in a cluster of two cores."""
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    begin = ray.init

    def init(**options):
        return begin(**options, num_cpus=2)

    monkeypatch.setattr(ray, "init", init)
    return ray


@pytest.mark.slow
def test_a_killed_actor_costs_only_its_batch(tmp_path, cluster, capfd):
    whole = KnowledgeExtractor(Reader()).extract(table(), tmp_path / "whole")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    work = Reads("01", str(tmp_path))
    store = run_parts(work, tmp_path / "s", parts=6, engine="ray", workers=2, retries=5)
    kills = [path for path in tmp_path.iterdir() if len(path.name) == 64]
    assert len(kills) >= 2
    for level in ("scenario", "user"):
        ids = whole.ids(level)
        assert sorted(store.ids(level)) == sorted(ids)
        assert store.vectors(level, ids).tobytes() == whole.vectors(level, ids).tobytes()
    assert not (tmp_path / "s.parts").exists()
    assert not cluster.is_initialized()
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert capfd.readouterr().out == "", "what Ray says is not data"


@pytest.mark.slow
def test_the_rules_of_a_run_hold_with_ray_too(tmp_path, cluster):
    """One cluster for two runs: declared and undeclared errors and a death; then a stop."""
    cluster.init(include_dashboard=False, log_to_driver=False)
    folder = PartsFolder(tmp_path / "s")
    folder.path.mkdir()
    finished = []

    def go(work, count, stop=lambda: False):
        tasks = [Task(part, folder.store(part)) for part in Part.all(count)]
        handout = Handout(tasks, 1, lambda part, more: finished.append(part.name))
        ask = folder.ask_to_stop
        ray_actors.run(work, handout, workers=2, retries=1, stop=stop, ask_to_stop=ask)
        return handout

    try:
        handout = go(Notes(does=((0, "declare"), (1, "break-once"), (2, "die"))), 5)
        assert sorted(finished) == [f"part-0000{index}-of-00005" for index in (1, 3, 4)]
        words = {failure.part.index: failure.words for failure in handout.failures}
        assert words.keys() == {0, 2}
        assert words[0] == "no model for part-00000-of-00005."
        assert words[2].startswith("its actor was lost")
        assert "tried 2 times" in words[2]
        assert "\x1b" not in words[2]
        until = time.monotonic() + 6
        handout = go(Notes(seconds=60), 2, stop=lambda: time.monotonic() > until)
        assert time.monotonic() - until < 5, "they stopped after their batch"
        assert handout.stopped
        assert len(finished) == 3
        assert not handout.failures
        assert cluster.is_initialized(), "a cluster that was there stays"
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_workers_that_cannot_start_are_an_error(tmp_path, monkeypatch):
    """On another machine the package may be missing; here the module of the work is."""
    pytest.importorskip("ray")
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(MsrEnhanceError, match=r"no worker can start: .*part_works.*same packages"):
        run_parts(Notes(), tmp_path / "s", parts=2, engine="ray", workers=1)


@pytest.mark.parametrize(
    ("nodes", "workers", "count", "needs"),
    [
        ([{"CPU": 2.0}], None, 2, {"num_cpus": 0.9}),
        ([{"CPU": 2.0}], 4, 4, {"num_cpus": 0.45}),
        ([{"CPU": 32.0}], None, 2, {"num_cpus": 14.0}),
        (
            [{"CPU": 64.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 4.0}],
            None,
            8,
            {"num_cpus": 14.0, "num_gpus": 1.0},
        ),
        ([{"CPU": 4.0, "GPU": 8.0}], None, 8, {"num_cpus": 0.45, "num_gpus": 1.0}),
        ([{"CPU": 64.0}, {"CPU": 2.0}], 1, 1, {"num_cpus": 59.0}),
        ([{"CPU": 5.0}] * 2, 3, 3, {"num_cpus": 2.0}),
        ([{"CPU": 8.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 3.0}], None, 4, {"num_cpus": 0.31, "num_gpus": 1.0}),
    ],
)
def test_actors_ask_for_no_more_than_there_is(nodes, workers, count, needs):
    """An actor that no machine has room for would wait for ever, without a word."""
    found, asked = ray_actors.room(Nodes(nodes), workers)
    assert found == count
    assert asked == pytest.approx(needs, rel=0.1)
    assert found * asked["num_cpus"] < sum(node["CPU"] for node in nodes)


@pytest.mark.parametrize(
    ("nodes", "workers", "said"),
    [
        ([{"CPU": 8.0, "GPU": 2.0}], 3, "3 workers need a GPU each; the cluster has 2"),
        ([{}], None, "no CPUs"),
    ],
)
def test_more_actors_than_there_is_room_for(nodes, workers, said):
    with pytest.raises(MsrEnhanceError, match=said):
        ray_actors.room(Nodes(nodes), workers)


class Nodes:
    """A cluster as far as its machines go, and one that has died."""

    def __init__(self, nodes):
        self._nodes = nodes

    def nodes(self):
        alive = [{"Alive": True, "Resources": node} for node in self._nodes]
        return [*alive, {"Alive": False, "Resources": {"CPU": 900.0}}]
