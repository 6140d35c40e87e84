"""Run a proof in a process of its own, on the library as it is or on a copy with a check taken out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None

_RUN = """
import json, sys
from pathlib import Path
from benchmarks.durability import {name}
import msr_enhance
assert Path(msr_enhance.__file__).is_relative_to({package!r}), msr_enhance.__file__
print(json.dumps({name}.prove(Path({folder!r}), {count}, {seed})))
"""


def prove(name, count, seed=0, package=ROOT, memory=True):
    """The figures of a proof; its words where it fails."""
    scratch = Path(tempfile.mkdtemp(prefix="durability-", dir=MEMORY if memory else None))
    folder = str(scratch / name)
    try:
        code = _RUN.format(name=name, package=str(package), folder=folder, count=count, seed=seed)
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=scratch,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": os.pathsep.join([str(package), str(ROOT)]),
                "TMPDIR": str(scratch),
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if run.returncode:
        assert "AssertionError" in run.stderr, run.stderr[-3000:]
        return run.stderr[-3000:]
    return json.loads(run.stdout)


def broken(folder, file, check, instead):
    """A copy of the library in which a check is something else."""
    shutil.copytree(
        ROOT / "msr_enhance", folder / "msr_enhance", ignore=shutil.ignore_patterns("__pycache__")
    )
    path = folder / "msr_enhance" / file
    source = path.read_text("utf-8")
    assert source.count(check) == 1, f"{file} has {source.count(check)} times {check!r}"
    path.write_text(source.replace(check, instead), "utf-8")
    return folder
