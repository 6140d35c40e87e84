"""The proofs of `benchmarks/durability`, with the counts of every push, each in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def proved(name, seed=0, count=None, package=ROOT):
    """Run a proof of the package in a folder; what came of it."""
    words = ["--only", name, "--seed", str(seed), *(["--count", str(count)] if count else [])]
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.durability", *words],
        cwd=package,  # comes first where Python looks for modules
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert run.returncode in (0, 1), run.stderr[-3000:]
    assert run.stdout, run.stderr[-3000:]
    result = json.loads(run.stdout)[name]
    assert run.returncode == result["failures"]
    return result


def holds(name, **options):
    result = proved(name, **options)
    assert not result["failures"], result["error"]
    return result["figures"]


def test_random_kills_lose_nothing_double_nothing_and_change_nothing():
    assert holds("kills")["kills"] == 200


def test_a_kill_before_any_call_leaves_the_old_or_the_new():
    assert holds("every_call")["kills"] > 150


def test_a_killed_extraction_ends_with_the_same_bytes():
    assert holds("resume")["kills"] == 50


def test_a_disk_that_refuses_takes_nothing_away():
    figures = holds("faults")
    assert figures["faults"] == 1_200
    assert figures["raised"] > 600


def test_power_loss_takes_nothing_away_and_every_broken_protocol_is_caught():
    figures = holds("power_loss")
    assert figures["states"] > 500
    assert figures["broken_protocols"] >= 8


def test_writers_lose_nothing_with_and_without_a_lock():
    figures = holds("writers")
    assert figures["slowest_refusal_ms"] < 1_000
    assert figures["conflicts"] > 0


def test_readers_never_see_an_error_during_writes():
    assert holds("readers")["reads"] > 50


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "code", "broken", "name"),
    [
        ("atomic.py", "os.link(temporary, folder / name)", "os.rename(temporary, folder / name)", "writers"),
        ("atomic.py", "            os.fsync(descriptor)\n        finally", "        finally", "power_loss"),
        ("atomic.py", "[os.write(descriptor, rest) :]", "[: 0 * os.write(descriptor, rest)]", "faults"),
        ("atomic.py", "        sync_folder(folder)\n\n\ndef link_new", "\n\ndef link_new", "power_loss"),
        ("store/sweep.py", "now - max(seen.st_mtime, seen.st_ctime) > GRACE", "True", "readers"),
        ("store/sweep.py", "not OURS.fullmatch(entry.name)", "entry", "kills"),
    ],
    ids=["rename", "no fsync", "short write", "no folder fsync", "no grace", "no sweep"],
)  # fmt: skip
def test_a_package_with_a_promise_broken_is_caught(tmp_path, file, code, broken, name):
    """A proof that cannot fail proves nothing."""
    shutil.copytree(ROOT / "msr_enhance", tmp_path / "msr_enhance")
    path = tmp_path / "msr_enhance" / file
    source = path.read_text("utf-8")
    assert source.count(code) == 1
    path.write_text(source.replace(code, broken), "utf-8")
    assert proved(name, package=tmp_path)["failures"] == 1
