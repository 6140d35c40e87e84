"""Commit protocols that lose data when the power fails: what was recorded, with one promise broken.

Each changes the log of the real code the way a plausible mistake would have. A simulator that does not
catch every one of them proves nothing about the log that was not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from benchmarks.durability.disk import Event

Log = list[Event]


def no_data_fsync(log: Log) -> Log:
    """Shards are not fsynced."""
    return [e for e in log if not (e.kind == "sync" and e.file in _shards(log))]


def no_manifest_fsync(log: Log) -> Log:
    """Manifests are not fsynced."""
    return [e for e in log if not (e.kind == "sync" and e.file in _manifests(log))]


def no_folder_fsync_after_shards(log: Log) -> Log:
    """The names of shards are not fsynced before the manifest is linked."""
    return _without_folder_syncs(log, lambda name: not _is_manifest(name))


def no_folder_fsync_after_manifests(log: Log) -> Log:
    """The name of a manifest is not fsynced before the rows are acknowledged."""
    return _without_folder_syncs(log, _is_manifest)


def no_folder_fsync(log: Log) -> Log:
    """No folder is ever fsynced."""
    return [e for e in log if e.kind != "sync_folder"]


def manifest_before_shards(log: Log) -> Log:
    """A manifest is written, linked and fsynced before the files that it names."""
    manifests = _manifests(log)

    def swapped(step: Log) -> Log:
        last = max((n for n, e in enumerate(step) if e.kind == "name" and _is_manifest(e.path)), default=-1)
        if last < 0:
            return step
        end = next(n for n, e in enumerate(step) if n > last and e.kind == "sync_folder") + 1
        first = [e for e in step[:end] if e.file in manifests]
        return [*first, step[end - 1], *(e for e in step[:end] if e.file not in manifests), *step[end:]]

    return _by_step(log, swapped)


def acknowledged_early(log: Log) -> Log:
    """Rows are acknowledged once the manifest is linked, before its name is fsynced."""

    def early(step: Log) -> Log:
        linked = [n for n, e in enumerate(step) if e.kind == "name" and _is_manifest(e.path)]
        if not linked or step[-1].kind != "acknowledge":
            return step
        return [*step[: linked[-1] + 1], step[-1], *step[linked[-1] + 1 : -1]]

    return _by_step(log, early)


def linked_before_fsync(log: Log) -> Log:
    """A manifest is linked first, and fsynced afterwards."""
    return _after_the_name(log, _manifests(log))


def everything_fsynced_late(log: Log) -> Log:
    """All files of a commit are fsynced after the manifest's name, just before the acknowledgement."""

    def late(step: Log) -> Log:
        if not step or step[-1].kind != "acknowledge":
            return step
        syncs = [e for e in step if e.kind == "sync"]
        return [*(e for e in step[:-1] if e.kind != "sync"), *syncs, step[-1]]

    return _by_step(log, late)


def manifest_in_place(log: Log) -> Log:
    """A manifest is written under its final name, with no temporary file before."""
    final = {e.file: e.path for e in log if e.kind == "name" and _is_manifest(e.path)}
    temporary = {e.path for e in log if e.kind == "name" and e.file in final and not _is_manifest(e.path)}
    changed = []
    named: set[int] = set()
    for e in log:
        if e.path in temporary and e.kind == "gone":
            continue
        if e.kind == "name" and e.file in final:
            if e.file in named:
                continue
            named.add(e.file)
            e = e._replace(path=final[e.file])
        changed.append(e)
    return changed


def fsync_before_write(log: Log) -> Log:
    """A file is fsynced while it is still empty."""
    changed: Log = []
    for e in log:
        if e.kind == "sync":
            place = next((n for n, other in enumerate(changed) if other.file == e.file), len(changed))
            changed.insert(place + 1, e)
        else:
            changed.append(e)
    return changed


def removed_too_early(log: Log) -> Log:
    """What a version replaces is removed before that version is durable."""
    steps = _steps(log)
    for path in {e.path for e in log if e.kind == "gone" and e.path.endswith(".safetensors")}:
        digest = path.rpartition("-")[2].removesuffix(".safetensors").encode()
        named = [n for n, step in enumerate(steps) if any(digest in e.data for e in step)]
        if named and named[-1] + 1 < len(steps):
            _removed_before_the_manifest(steps, path, named[-1] + 1)
    return [e for step in steps for e in step]


def last_version_removed_first(log: Log) -> Log:
    """The version before is removed before the new one is durable."""
    steps = _steps(log)
    for number, step in enumerate(steps[1:], 1):
        for path in [e.path for e in step if e.kind == "gone" and _is_manifest(e.path)]:
            _removed_before_the_manifest(steps, path, number - 1)
    return [e for step in steps for e in step]


PROTOCOLS: tuple[Callable[[Log], Log], ...] = (
    no_data_fsync,
    no_manifest_fsync,
    no_folder_fsync_after_shards,
    no_folder_fsync_after_manifests,
    no_folder_fsync,
    manifest_before_shards,
    acknowledged_early,
    linked_before_fsync,
    everything_fsynced_late,
    manifest_in_place,
    fsync_before_write,
    removed_too_early,
    last_version_removed_first,
)


def is_temporary(path: str) -> bool:
    """Whether a name is of no interest to readers: a temporary file, or the lock."""
    name = path.rpartition("/")[2]
    return name.startswith(".") or name == "lock"


def _is_manifest(path: str) -> bool:
    return path.rpartition("/")[2].startswith("manifest-")


def _manifests(log: Log) -> set[int]:
    return {e.file for e in log if e.kind == "name" and _is_manifest(e.path)}


def _shards(log: Log) -> set[int]:
    return {e.file for e in log if e.kind == "name" and e.path.endswith(".safetensors")}


def _steps(log: Log) -> list[Log]:
    """The log in pieces that each end with an acknowledgement, and the rest."""
    ends = [n + 1 for n, e in enumerate(log) if e.kind == "acknowledge"]
    return [log[start:end] for start, end in pairwise([0, *ends, len(log)])]


def _by_step(log: Log, change: Callable[[Log], Log]) -> Log:
    """Change what lies between two acknowledgements, with the second of them."""
    return [e for step in _steps(log) for e in change(step)]


def _without_folder_syncs(log: Log, of: Callable[[str], bool]) -> Log:
    """Leave out a folder's fsync where the newest name in it, temporary ones aside, is such a name."""
    changed, newest = [], ""
    for e in log:
        if e.kind == "name" and e.file >= 0 and not is_temporary(e.path):
            newest = e.path
        if not (e.kind == "sync_folder" and newest and of(newest)):
            changed.append(e)
    return changed


def _after_the_name(log: Log, files: set[int]) -> Log:
    """Move the fsync of some files behind that of the folder that has their name."""
    changed: Log = []
    held: Log = []
    for e in log:
        if e.kind == "sync" and e.file in files:
            held.append(e)
            continue
        changed.append(e)
        if e.kind == "sync_folder":
            changed += held
            held = []
    return changed + held


def _removed_before_the_manifest(steps: list[Log], path: str, number: int) -> None:
    """Move the removal of a file into a step, durably, in front of its manifest."""
    at = [n for n, e in enumerate(steps[number]) if e.kind == "name" and _is_manifest(e.path)]
    if at:
        for step in steps:
            step[:] = [e for e in step if not (e.kind == "gone" and e.path == path)]
        folder = path.rpartition("/")[0]
        steps[number][at[0] : at[0]] = [Event("gone", path), Event("sync_folder", folder)]
