"""run_parts: one store from parts that several workers make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msr_enhance import errors
from msr_enhance.errors import DataError, MsrEnhanceError, Stopped, StoreError, not_one_of
from msr_enhance.progress import progress
from msr_enhance.scale import processes, ray_actors
from msr_enhance.scale.gpus import visible_gpus
from msr_enhance.scale.handout import Failure, Handout, Task
from msr_enhance.scale.outcome import Work
from msr_enhance.scale.part import Part
from msr_enhance.scale.parts_folder import PartsFolder
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.store.merge import join, leave_out
from msr_enhance.store.versions import highest_version

ENGINES = ("processes", "ray")


def run_parts(
    work: Work,
    out: str | Path,
    *,
    parts: int,
    engine: str = "processes",
    workers: int | None = None,
    retries: int = 2,
    key: str = "",
    prepare: Work | None = None,
    joining: Callable[[Sequence[Path]], None] = lambda stores: None,
    stop: Callable[[], bool] = lambda: False,
    address: str | None = None,
) -> KnowledgeStore:
    """Have workers make a private store for each part, then join them into one.

    The parts lie in ``<out>.parts`` and are removed once `out` holds all of them in one commit. However a
    run ends, the same call goes on: finished parts are known by a mark, the others by their own rows.

    Args:
        work: Called as ``work(part, folder)`` in a worker; makes or goes on with the part's store in
            `folder`. It should end soon with `Stopped` when ``asked_to_stop(folder)`` says so.
        out: Folder of the store.
        parts: Into how many parts the users are divided; a few for each worker even out their times.
        engine: ``processes`` or ``ray``.
        workers: By default one per GPU, or two where there is none.
        retries: How often a part whose worker died, or broke, is tried again.
        key: Names what `work` makes; marks of other work do not count.
        prepare: Called as ``prepare(part 0 of 1, out)`` in a worker when `out` is a store already; returns
            whether anything is missing from it. Without it such a store is complete.
        joining: Called with the folders of all parts when they are finished and about to be joined.
        stop: Asked several times a second; once true, workers end after their batch.
        address: Address of a Ray cluster; by default ``RAY_ADDRESS``, else a local one.

    Returns:
        The joined store.

    Raises:
        MsrEnhanceError: If parts could not be made: of the class they failed with; the others are kept.
        StoreError: If `out` is something else, or another run is at it.
        Stopped: If it was asked to stop; what is done is kept.
    """
    out, everyone = Path(out), Part.all(parts)
    _check(out, engine, workers, retries)
    folder = PartsFolder(out, key)
    folder.check_count(parts)
    crew = _Crew(engine, workers, retries, stop, folder, address)
    stores = [folder.store(part) for part in everyone]
    with folder.held():
        folder.may_go_on()
        if highest_version(out):
            # Joining again adds nothing: a run may have been killed between joining and clearing up.
            if all(folder.finished(part, by_anyone=True) for part in everyone):
                _join(stores, out)
                folder.clear()
            complete = not folder.counts() if prepare is None else not crew.prepare(prepare, out)
            if complete:
                # What other work has begun here is not ours to remove.
                if not any(leave_out(store, out) for store in folder.stores() if highest_version(store)):
                    folder.clear()
                return KnowledgeStore.load(out, verify=False)
        crew.make(work, everyone)
        joining(stores)
        _join(stores, out)
        folder.clear()
    return KnowledgeStore.load(out, verify=False)


def _join(stores: Sequence[Path], out: Path) -> None:
    """Join the parts. A run by one worker may have read some of their users into `out` meanwhile."""
    if highest_version(out):
        stores = [store for store in stores if leave_out(store, out)]
    if stores:
        join(stores, out)


class _Crew:
    """The workers of one run."""

    def __init__(
        self,
        engine: str,
        workers: int | None,
        retries: int,
        stop: Callable[[], bool],
        folder: PartsFolder,
        address: str | None,
    ) -> None:
        self._engine, self._workers, self._retries = engine, workers, retries
        self._stop, self._folder, self._address = stop, folder, address

    def prepare(self, work: Work, out: Path) -> bool:
        """Look through a store that is there; whether anything is missing."""
        answers: list[bool] = []
        handout = Handout([Task(Part(0, 1), out)], self._retries, lambda _, more: answers.append(more))
        self._run(work, handout, 1)
        self._conclude(handout, 1)
        return answers[0]

    def make(self, work: Work, parts: Sequence[Part]) -> None:
        """Have every part that is not finished made."""
        waiting = [Task(part, self._folder.store(part)) for part in parts if not self._folder.finished(part)]
        found = len(parts) - len(waiting)
        label = f"parts ({found} of {len(parts)} were finished)" if found else "parts"
        with progress(label, len(waiting), unit="parts") as advance:

            def done(part: Part, _: bool) -> None:
                self._folder.finish(part)
                advance(1)

            handout = Handout(waiting, self._retries, done)
            if waiting:
                self._run(work, handout, len(waiting))
        self._conclude(handout, len(parts))

    def _run(self, work: Work, handout: Handout, tasks: int) -> None:
        ask = self._folder.ask_to_stop
        if self._engine == "ray":
            workers = self._workers and min(self._workers, tasks)
            ray_actors.run(
                work,
                handout,
                workers=workers,
                retries=self._retries,
                stop=self._stop,
                ask_to_stop=ask,
                address=self._address,
            )
            return
        gpus = visible_gpus()
        workers = min(self._workers or len(gpus) or 2, tasks)
        processes.run(work, handout, workers=workers, gpus=gpus, stop=self._stop, ask_to_stop=ask)

    def _conclude(self, handout: Handout, parts: int) -> None:
        if handout.stopped:
            raise Stopped(f"stopped; finished parts and committed rows are in {self._folder.path}")
        if handout.failures:
            raise _error(handout.failures, parts, self._folder)


def _check(out: Path, engine: str, workers: int | None, retries: int) -> None:
    if engine not in ENGINES:
        raise DataError(not_one_of("engine", engine, ENGINES, "Write --engine processes."))
    if workers is not None and workers < 1:
        raise DataError(f"{workers} workers can do nothing; write --workers 1 or more.")
    if retries < 0:
        raise DataError(f"retries is {retries}; write 0 or more.")
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file; a store is a folder. Write another path.")
    if out.is_dir() and not highest_version(out) and any(out.iterdir()):
        raise StoreError(f"{out} holds files and is no store; write the path of a new or empty folder.")


def _error(failures: Sequence[Failure], parts: int, folder: PartsFolder) -> MsrEnhanceError:
    """One error for all parts that failed, of their class if they share one."""
    kinds = {failure.error for failure in failures}
    kind = getattr(errors, kinds.pop(), None) if len(kinds) == 1 else None
    if not (isinstance(kind, type) and issubclass(kind, MsrEnhanceError)):
        kind = MsrEnhanceError
    same = len({failure.words for failure in failures}) == 1
    shown = failures[:1] if same else failures[:5]
    said = "; ".join(f"{failure.part.name}: {failure.words.rstrip('.')}" for failure in shown)
    kept = f" What the others made is kept in {folder.path}; the same command goes on."
    rest = len(failures) - len(shown)
    more = f"; and {rest} more{' with the same words' if same else ''}" if rest else ""
    return kind(
        f"{len(failures)} of {parts} parts could not be made. {said}{more}.{kept if folder.stores() else ''}"
    )
