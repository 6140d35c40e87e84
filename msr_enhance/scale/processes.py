"""Worker processes of one machine: each keeps its model, parts are handed out one by one."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import connection, resource_tracker
from typing import Any, TextIO

from msr_enhance.errors import Stopped
from msr_enhance.scale.handout import Handout, Task
from msr_enhance.scale.outcome import Outcome, Work, attempt

GRACE = 25.0  # seconds for the batch in flight; under the 30 of most supervisors
_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
_spawn = multiprocessing.get_context("spawn")


def run(
    work: Work,
    handout: Handout,
    *,
    workers: int,
    gpus: list[str],
    stop: Callable[[], bool],
    ask_to_stop: Callable[[], None],
) -> None:
    """Work through a handout with processes of this machine.

    A worker takes one part after another, so that what its first part loaded serves the others. When it
    dies, or breaks with an undeclared error, a fresh one takes its place. Worker k sees GPU k alone
    (``CUDA_VISIBLE_DEVICES``); without GPUs the cores are divided (``OMP_NUM_THREADS``). Both are set
    before the worker starts, so they hold whatever it imports. The workers die with this process.

    Args:
        work: What makes a part; an importable function or a picklable object.
        handout: The parts.
        workers: How many processes.
        gpus: The GPUs to deal out, as ``CUDA_VISIBLE_DEVICES`` names them.
        stop: Asked several times a second; once true, no part is begun.
        ask_to_stop: Called then: it must reach the work, which is to end after its batch. Workers that
            do not within 25 seconds are killed.

    Raises:
        KeyboardInterrupt: As it came, once the workers have ended.
    """
    pool = _Pool(work, handout, workers, gpus, ask_to_stop)
    try:
        pool.drain(stop)
    except Stopped:  # the caller's own grace is over
        raise
    except KeyboardInterrupt:
        pool.wind_down()
        pool.drain(stop)
        raise
    finally:
        pool.kill()


class _Pool:
    def __init__(
        self, work: Work, handout: Handout, workers: int, gpus: list[str], ask_to_stop: Callable[[], None]
    ) -> None:
        self._work, self._handout, self._ask_to_stop = work, handout, ask_to_stop
        self._environments = [_environment(slot, workers, gpus) for slot in range(workers)]
        self._workers: list[_Worker | None] = [None] * workers
        self._deadline: float | None = None

    def drain(self, stop: Callable[[], bool]) -> None:
        """Until nothing is waiting that may begin, and nothing is in flight."""
        while True:
            if self._deadline is None and (stop() or self._handout.stopped):
                self.wind_down()
            self._fill()
            busy = [worker for worker in self._workers if worker and worker.task]
            if not busy:
                return
            if self._deadline is not None and time.monotonic() > self._deadline:
                return
            waited: list[Any] = [worker.pipe for worker in busy]
            waited += [worker.process.sentinel for worker in busy]
            connection.wait(waited, timeout=0.2)
            for slot, worker in enumerate(self._workers):
                if worker and worker.task and not self._heard(worker, worker.task):
                    worker.kill()
                    self._workers[slot] = None

    def wind_down(self) -> None:
        """Begin nothing more, and have the work in flight end after its batch."""
        self._handout.stop()
        self._ask_to_stop()
        self._deadline = time.monotonic() + GRACE

    def kill(self) -> None:
        for worker in self._workers:
            if worker:
                worker.kill()

    def _fill(self) -> None:
        for slot, worker in enumerate(self._workers):
            if worker and worker.task:
                continue
            if (task := self._handout.take()) is None:
                return
            if worker is None or not worker.process.is_alive():
                worker = self._workers[slot] = _Worker(self._work, self._environments[slot])
            worker.give(task)

    def _heard(self, worker: _Worker, task: Task) -> bool:
        """Take what a worker has to say; false if it is of no more use."""
        # The pipe before the exit code: a worker may report its part and die right after.
        if (outcome := worker.report()) is not None:
            worker.task = None
            self._handout.settle(task, outcome)
            return outcome.kind != "broken"  # what broke it (a lost GPU, say) may sit in the process
        if worker.process.is_alive():
            return True
        worker.process.join()
        self._handout.lost(task, _ending(worker.process.exitcode))
        return False


class _Worker:
    """A process, and the task it is at."""

    def __init__(self, work: Work, environment: Mapping[str, str]) -> None:
        self.task: Task | None = None
        self.pipe, theirs = _spawn.Pipe()
        self.process = _spawn.Process(target=_serve, args=(work, theirs), daemon=True)
        with _set(environment), _signals_held():
            self.process.start()
        theirs.close()

    def give(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it died just now; the next look finds that out
            self.pipe.send(task)

    def report(self) -> Outcome | None:
        """The outcome of the task if there is one."""
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except (EOFError, OSError):  # the pipe of a dead process
            self.process.join(5)
            return None

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(work: Work, pipe: connection.Connection) -> None:
    """The life of a worker."""
    for number in _SIGNALS:  # they reach the whole group; the parent decides and asks through the folder
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    os.dup2(2, 1)  # the parent's stdout is for data
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log = _NamedLines(sys.stderr)
    sys.stderr = log
    while True:
        try:
            task: Task | None = pipe.recv()
        except EOFError:
            return
        if task is None:
            return
        log.name = task.part.name
        pipe.send(attempt(work, task.part, task.folder))


def _die_with_parent() -> None:
    """A worker that outlives its parent would write into a store that the next run continues."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)  # as good as kill -9, which a store survives


class _NamedLines:
    """A log of lines, each with the name of the part; no terminal, so that no bar is drawn over another."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO) -> None:
        self.name = ""
        self._stream = stream
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._stream.write(f"[{self.name}] {line}\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._stream.fileno()


def _environment(slot: int, workers: int, gpus: list[str]) -> dict[str, str]:
    """What the process of a slot may use."""
    if gpus:
        return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = max(1, cores // workers)
    given = {name: os.environ.get(name, "") for name in _THREADS}
    return {name: str(min(share, int(text)) if text.isdecimal() else share) for name, text in given.items()}


@contextlib.contextmanager
def _set(environment: Mapping[str, str]) -> Iterator[None]:
    """This process's environment, changed for the moment in which a child copies it."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back; a child inherits that, and is not killed before it knows what to do with them."""
    resource_tracker.ensure_running()  # its own start would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending(code: int | None) -> str:
    """An exit code in words."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ": killed from outside, often for want of memory" if -code == signal.SIGKILL else ""
    return f"exit code {code} ({name}{hint})"
