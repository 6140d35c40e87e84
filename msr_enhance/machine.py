"""What the operating system lets this process use: cores, memory, disk; limits of a container included."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED = 1 << 60  # cgroup v1 writes a number near 2^63 where there is no limit


def usable_cores(root: Path = Path("/")) -> float:
    """Cores this process may keep busy: its CPU affinity, or less where a container has a quota.

    Args:
        root: Where `proc` and `sys` are; another folder for tests.

    Returns:
        A whole number without a quota; a quota may allow a fraction, for example 1.5.
    """
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    for folder in _groups(root, "cpu"):
        quota, period = (
            _words(folder / "cpu.max", 2)
            or (
                *_words(folder / "cpu.cfs_quota_us", 1),
                *_words(folder / "cpu.cfs_period_us", 1),
            )
            or ("max", "")
        )
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            allowed = min(allowed, int(quota) / int(period))
    return allowed


def memory(root: Path = Path("/")) -> tuple[int, int] | None:
    """Memory this process may have, and how much of it is free now; a container's limit counts.

    Args:
        root: Where `proc` and `sys` are; another folder for tests.

    Returns:
        Bytes `(in all, free)`; None where the system does not say.
    """
    try:
        lines = (root / "proc/meminfo").read_text("ascii").splitlines()
        known = {
            name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)
        }
        total, free = known["MemTotal"], known["MemAvailable"]
    except (OSError, ValueError, IndexError, KeyError):
        return None
    for folder in _groups(root, "memory"):
        limit = _words(folder / "memory.max", 1) or _words(folder / "memory.limit_in_bytes", 1)
        used = _words(folder / "memory.current", 1) or _words(folder / "memory.usage_in_bytes", 1)
        if limit and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
            total = min(total, int(limit[0]))
            taken = int(used[0]) - _cached(folder) if used and used[0].isdigit() else 0
            free = min(free, max(0, int(limit[0]) - taken))
    return total, free


def memory_of(device: str) -> tuple[int, int] | None:
    """Memory where a model on a device would be, in bytes `(in all, free)`; None where unknown."""
    if not device.startswith("cuda"):
        return memory()
    import torch

    free, total = torch.cuda.mem_get_info(torch.device(device))
    return int(total), int(free)


def free_disk(path: Path) -> tuple[Path, int] | None:
    """Free bytes of the disk that holds a path, and the nearest folder of it that exists.

    Args:
        path: A file or folder; it need not exist yet.

    Returns:
        None where the disk cannot be asked.
    """
    path = path.expanduser().absolute()
    there = next((folder for folder in (path, *path.parents) if folder.is_dir()), None)
    try:
        return None if there is None else (there, shutil.disk_usage(there).free)
    except OSError:
        return None


def size_text(size: float) -> str:
    """Bytes for people, in powers of ten: `12.5 GB`."""
    if not math.isfinite(size):
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def time_text(seconds: float) -> str:
    """Seconds for people: `0.2 s`, `12 min`, `3.4 h`, `12 days`."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 99.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.1f} min" if seconds < 9.95 * 60 else f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:,.0f} days"


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the control groups that hold this process, from its own up to the top."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return
    top = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            base = top / "unified" if (top / "unified").is_dir() else top
        elif controller in names.split(","):
            base = top / controller if (top / controller).is_dir() else top / names
        else:
            continue
        inner = base / path.lstrip("/")
        # Inside a container the path may be the host's; its own group is then mounted at the top.
        while inner != base and base in inner.parents:
            yield inner
            inner = inner.parent
        yield base


def _words(file: Path, count: int) -> tuple[str, ...]:
    """The first words of a file; empty where it has fewer or cannot be read."""
    try:
        words = tuple(file.read_text("ascii").split()[:count])
    except (OSError, ValueError):
        return ()
    return words if len(words) == count else ()


def _cached(folder: Path) -> int:
    """Bytes a group uses for files it could drop at once; they count as used but are free."""
    try:
        lines = (folder / "memory.stat").read_text("ascii").splitlines()
        counts = dict(line.split(maxsplit=1) for line in lines)
        return int(counts.get("total_inactive_file") or counts.get("inactive_file") or 0)
    except (OSError, ValueError):
        return 0
