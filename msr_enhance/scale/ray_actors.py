"""Workers as Ray actors, on one machine or a cluster; an extra, `pip install 'msr-enhance[ray]'`."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from msr_enhance.errors import ModelError, MsrEnhanceError, Stopped
from msr_enhance.scale.handout import Handout, Task
from msr_enhance.scale.outcome import Outcome, Work, attempt
from msr_enhance.scale.part import Part
from msr_enhance.scale.processes import GRACE

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SAY_AFTER = 30.0  # seconds without a worker before the cluster is said to be short of room


def run(
    work: Work,
    handout: Handout,
    *,
    workers: int | None,
    retries: int,
    stop: Callable[[], bool],
    ask_to_stop: Callable[[], None],
    address: str | None = None,
) -> None:
    """Work through a handout with Ray actors.

    Connects to the cluster at `address` (else at ``RAY_ADDRESS``), or starts a local one for the time of
    the run. Ray carries part numbers and outcomes, never rows: every actor writes to `out`'s parts folder
    itself, so all machines need the same storage, the same working folder and the same packages.

    Args:
        work: What makes a part; picklable.
        handout: The parts.
        workers: How many actors; by default one per GPU of the cluster, or two where there is none.
        retries: How often Ray itself may hand a part to a restarted actor.
        stop: Asked several times a second; once true, no part is begun.
        ask_to_stop: Called then: it must reach the work, which is to end after its batch. Actors that do
            not within 25 seconds are killed.
        address: Address of a cluster.

    Raises:
        ModelError: Ray is not installed.
        MsrEnhanceError: The cluster cannot be reached, or is too small.
        KeyboardInterrupt: As it came, once the actors have ended.
    """
    ray = _ray()
    # Ray prints what befalls an actor; stdout is for data.
    with contextlib.redirect_stdout(sys.stderr), _connected(ray, address):
        count, needs = room(ray, workers)
        pool = _Pool(ray, work, handout, count, needs, retries, ask_to_stop)
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


class _Reader:
    """The actor: keeps what the work has loaded, and makes one part after another."""

    def __init__(self, work: Work, folder: str) -> None:
        self._work = work
        os.chdir(folder)  # paths are relative to where the run was started

    def start(self) -> None:
        """Come up."""

    def read(self, part: Part, folder: Path) -> Outcome:
        return attempt(self._work, part, folder)


class _Pool:
    def __init__(
        self,
        ray: Any,
        work: Work,
        handout: Handout,
        count: int,
        needs: dict[str, float],
        retries: int,
        ask_to_stop: Callable[[], None],
    ) -> None:
        self._ray, self._handout, self._ask_to_stop = ray, handout, ask_to_stop
        self._needs = needs
        # Ray restarts a dead actor and gives it its part again; after `retries` the part is given up.
        actor: Any = ray.remote(max_restarts=-1, max_task_retries=retries, **needs)(_Reader)
        self._new: Callable[[], Any] = lambda: actor.remote(work, str(Path.cwd()))
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, Task]] = {}
        self._deadline: float | None = None
        self._came_up = False
        self._since = time.monotonic()
        for _ in range(count):
            self._start()

    def drain(self, stop: Callable[[], bool]) -> None:
        """Until nothing is waiting that may begin, and nothing is in flight."""
        while True:
            if self._deadline is None and (stop() or self._handout.stopped):
                self.wind_down()
            self._hand_out()
            idle = not self._busy and (self._deadline is not None or not self._handout)
            if idle or (self._deadline is not None and time.monotonic() > self._deadline):
                return
            ready, _ = self._ray.wait([*self._starting, *self._busy], timeout=0.2)
            for reference in ready:
                if reference in self._starting:
                    self._up(reference, self._starting.pop(reference))
                else:
                    self._settle(reference, *self._busy.pop(reference))
            self._say_if_short()

    def wind_down(self) -> None:
        """Begin nothing more, and have the work in flight end after its batch."""
        self._handout.stop()
        self._ask_to_stop()
        self._deadline = time.monotonic() + GRACE

    def kill(self) -> None:
        for actor in (*self._starting.values(), *self._idle, *(actor for actor, _ in self._busy.values())):
            with contextlib.suppress(Exception):  # the cluster may be gone already
                self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._new()
        self._starting[actor.start.remote()] = actor

    def _up(self, reference: Any, actor: Any) -> None:
        """An actor has come up, or never will; a part is given only to one that has."""
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if not (self._starting or self._idle or self._busy):
                raise MsrEnhanceError(
                    f"Ray: no worker can start: {_sentence(error)}. Every machine needs the same packages, "
                    f"and the folder {Path.cwd()}."
                ) from error
            return
        self._came_up = True
        self._idle.append(actor)

    def _hand_out(self) -> None:
        while self._idle and (task := self._handout.take()) is not None:
            actor = self._idle.pop()
            self._busy[actor.read.remote(task.part, task.folder)] = actor, task

    def _settle(self, reference: Any, actor: Any, task: Task) -> None:
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            # Ray has tried again by itself, so another try here would multiply the two.
            self._handout.give_up(task, f"its actor was lost ({_sentence(error)})")
        else:
            self._handout.settle(task, outcome)
            if outcome.kind != "broken":  # what broke it (a lost GPU, say) may sit in the process
                self._idle.append(actor)
                return
        self._ray.kill(actor)
        self._start()

    def _say_if_short(self) -> None:
        """Ray waits without a word for room that may never come."""
        if not self._came_up and time.monotonic() - self._since > _SAY_AFTER:
            self._since = time.monotonic()
            free = {name: self._ray.available_resources().get(name, 0) for name in ("CPU", "GPU")}
            sys.stderr.write(
                f"ray: no worker is up yet; each needs {self._needs}, free in the cluster: {free}\n"
            )


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModelError(
            "--engine ray needs Ray, which is not installed: pip install 'msr-enhance[ray]'. "
            "On one machine --engine processes does without."
        ) from error
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """A connection to a cluster; one that was there before stays as it was."""
    if ray.is_initialized():
        yield
        return
    local = address is None and "RAY_ADDRESS" not in os.environ
    if local:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster reports to nobody
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    extra: dict[str, Any] = {"include_dashboard": False} if local else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **extra)
    except (OSError, RuntimeError, ValueError) as error:
        where = "a local cluster cannot be started" if local else "the cluster cannot be reached"
        raise MsrEnhanceError(
            f"Ray: {where}: {_sentence(error)}. Set RAY_ADDRESS to a running cluster, or leave it unset."
        ) from error
    try:
        with contextlib.suppress(ValueError):  # not the main thread: then Ray has set none either
            for number, handler in handlers.items():  # Ray puts its own in their place
                signal.signal(number, handler)
        yield
    finally:
        ray.shutdown()


def room(ray: Any, workers: int | None) -> tuple[int, dict[str, float]]:
    """How many actors to make, and what each asks of the cluster; together never more than there is.

    Args:
        ray: The module, connected.
        workers: How many are wished for; None for one per GPU, or two without.

    Returns:
        The number, and ``num_cpus`` and ``num_gpus`` of each.

    Raises:
        MsrEnhanceError: If there is no room for so many.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0.0) for node in nodes))
    count = workers or gpus or 2
    if gpus and count > gpus:
        raise MsrEnhanceError(
            f"Ray: {count} workers need a GPU each; the cluster has {gpus}. Write --workers {gpus}."
        )
    # A tenth of the cores stays free for Ray itself. Fewer each, until all fit the single machines.
    share = 0.9 * sum(node.get("CPU", 0.0) for node in nodes) / count
    while share >= 0.01:
        cpus = float(int(share)) if share >= 1 else round(share - 0.005, 2)
        if sum(_fits(node, cpus, bool(gpus)) for node in nodes) >= count:
            return count, {"num_cpus": cpus, "num_gpus": 1.0} if gpus else {"num_cpus": cpus}
        share = share - 1 if share >= 2 else share * 0.8
    raise MsrEnhanceError(
        f"Ray: the cluster has no CPUs for {count} workers. Start its nodes with ray start --num-cpus N."
    )


def _fits(node: dict[str, float], cpus: float, with_gpu: bool) -> int:
    """How many actors a machine has room for."""
    most = int(node.get("CPU", 0.0) / cpus) if cpus > 0 else 0
    return min(most, int(node.get("GPU", 0.0))) if with_gpu else most


def _sentence(error: BaseException) -> str:
    """First and last line of a message, which may hold a traceback, without its colours."""
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    ends = dict.fromkeys([lines[0], lines[-1]] if lines else [type(error).__name__])
    return " … ".join(line.rstrip(".")[:200] for line in ends)
