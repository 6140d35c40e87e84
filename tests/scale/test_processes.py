"""Worker processes: kept, replaced when they die, stopped after their batch, gone with their parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from part_works import Notes, notes_of

from msr_enhance.errors import Stopped
from msr_enhance.scale import processes
from msr_enhance.scale.handout import Handout, Task
from msr_enhance.scale.part import Part
from msr_enhance.scale.parts_folder import PartsFolder

HERE = Path(__file__).parent


@pytest.fixture
def go(tmp_path):
    """Run some work over some parts; the handout afterwards and what the workers wrote down."""

    def run(work, count=4, *, workers=2, retries=2, gpus=(), stop=lambda: False):
        folder = PartsFolder(tmp_path / "s")
        folder.path.mkdir(exist_ok=True)
        finished = []
        tasks = [Task(part, folder.store(part)) for part in Part.all(count)]
        handout = Handout(tasks, retries, lambda part, more: finished.append(part))
        try:
            processes.run(
                work,
                handout,
                workers=workers,
                gpus=list(gpus),
                stop=stop,
                ask_to_stop=folder.ask_to_stop,
            )
        finally:
            notes = notes_of(folder.path)
        assert sorted(notes) == sorted(part.name for part in finished)
        return handout, notes

    return run


def test_a_worker_makes_one_part_after_another(go, capfd):
    handout, notes = go(Notes(), count=6)
    assert len(notes) == 6
    assert not handout.failures
    assert 1 <= len({note["pid"] for note in notes.values()}) <= 2
    assert os.getpid() not in {note["pid"] for note in notes.values()}
    printed = capfd.readouterr()
    assert printed.out == "", "stdout is for data"
    assert printed.err.count("a library prints this") == 6


def test_a_log_line_of_a_worker_says_its_part(go, capfd):
    go(Notes(does=((1, "break"),)), count=2, retries=0)
    lines = [line for line in capfd.readouterr().err.splitlines() if "RuntimeError: CUDA" in line]
    assert lines == ["[part-00001-of-00002] RuntimeError: CUDA error: device lost"]


@pytest.mark.parametrize("what", ["die-once", "exit-once", "fault-once", "break-once"])
def test_a_worker_that_dies_is_replaced_and_its_part_tried_again(go, what):
    handout, notes = go(Notes(does=((1, what),)))
    assert len(notes) == 4
    assert not handout.failures


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("die", r"exit code -9 (SIGKILL: killed from outside, often for want of memory) (tried 2 times)"),
        ("fault", "exit code -11 (SIGSEGV)"),
        ("exit", "exit code 3"),
        ("break", "RuntimeError: CUDA error: device lost (part_works.py:"),
        ("declare", "no model for part-00001-of-00004."),
    ],
)
def test_a_part_that_cannot_be_made_is_named_and_the_others_are_made(go, what, said):
    handout, notes = go(Notes(does=((1, what),)), retries=1)
    assert sorted(notes) == [f"part-0000{index}-of-00004" for index in (0, 2, 3)]
    (failure,) = handout.failures
    assert failure.part == Part(1, 4)
    assert said in failure.words


def test_the_same_declared_error_from_two_parts_ends_the_run(go):
    handout, notes = go(Notes(does=tuple((index, "declare") for index in range(40))), count=40)
    assert notes == {}
    assert 2 <= len(handout.failures) <= 3


def test_a_death_does_not_take_the_work_of_others(go):
    """Every worker dies at its first part, several times over."""
    handout, notes = go(Notes(does=tuple((index, "die-once") for index in range(4))))
    assert len(notes) == 4
    assert not handout.failures


def test_gpus_are_dealt_out_before_the_worker_starts(go, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    _, notes = go(Notes(seconds=0.3), count=4, gpus=["4", "GPU-ab"])
    assert {note["CUDA_VISIBLE_DEVICES"] for note in notes.values()} == {"4", "GPU-ab"}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"


def test_without_gpus_the_cores_are_divided(go, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    _, notes = go(Notes(), count=1, workers=2)
    assert [note["OMP_NUM_THREADS"] for note in notes.values()] == ["4"]
    assert "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    _, notes = go(Notes(), count=1, workers=2)
    assert [note["OMP_NUM_THREADS"] for note in notes.values()] == ["3"], "what the user set is the most"


def test_workers_stop_after_their_batch(go):
    until = time.monotonic() + 1.5
    handout, notes = go(Notes(seconds=30), stop=lambda: time.monotonic() > until)
    assert handout.stopped
    assert not handout.failures
    assert notes == {}
    assert time.monotonic() - until < 5


def test_workers_that_do_not_stop_in_time_are_killed(go, monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.3)
    until = time.monotonic() + 1.0
    handout, _ = go(Notes(does=((0, "hang"),)), count=1, stop=lambda: time.monotonic() > until)
    assert handout.stopped
    assert time.monotonic() - until < 5


@pytest.mark.parametrize("kind", [KeyboardInterrupt, Stopped])
def test_an_interruption_of_the_parent_passes_on_and_leaves_no_worker(go, kind):
    until, started = time.monotonic() + 1.0, time.monotonic()

    def stop():
        if time.monotonic() > until and not raised:
            raised.append(True)
            raise kind
        return False

    raised = []
    with pytest.raises(kind):
        go(Notes(seconds=30), stop=stop)
    assert time.monotonic() - started < 10


def test_workers_die_with_their_parent(tmp_path):
    """An orphan would go on writing into a store that the next run continues."""
    code = (
        "from pathlib import Path; from part_works import Notes; from msr_enhance.scale import processes;"
        "from msr_enhance.scale.handout import Handout, Task; from msr_enhance.scale.part import Part;"
        "import multiprocessing, threading, time\n"
        "def tell():\n"
        "    while len(found := multiprocessing.active_children()) < 2: time.sleep(0.05)\n"
        "    print(*(child.pid for child in found), flush=True)\n"
        "threading.Thread(target=tell, daemon=True).start()\n"
        f"tasks = [Task(p, Path({str(tmp_path)!r}) / p.name) for p in Part.all(2)]\n"
        "processes.run(Notes(seconds=60), Handout(tasks, 0, print), workers=2, gpus=[],"
        " stop=lambda: False, ask_to_stop=print)"
    )
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
    )
    with parent:
        children = [int(word) for word in parent.stdout.readline().split()]
        while len(list(tmp_path.glob("part-*"))) < 2:  # both are at work
            time.sleep(0.05)
        parent.send_signal(signal.SIGKILL)
    assert len(children) == 2
    end = time.monotonic() + 10
    while any(map(_lives, children)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(_lives, children))


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
