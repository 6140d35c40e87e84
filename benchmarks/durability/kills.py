"""kill -9 at random moments: nothing acknowledged is lost, nothing comes twice, and runs end alike.

A forked writer appends, drops, appends again what was dropped, adopts other stores (and compacts), and
writes a byte to a pipe after each step that returned. What the store should hold is kept outside of it.
After every kill a reader verifies and reads everything; the next writer goes on where the steps ended. At
the end the folder is compared with that of the same steps without kills, file by file and byte by byte.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

from benchmarks.durability.oracle import State, carry_out, ending, held, plan, same, settle, small
from benchmarks.durability.victims import killed_after, victim

STEPS = 60


def prove(folder: Path, count: int, seed: int) -> dict[str, int | float]:
    """Kill writers `count` times."""
    kills = runs = steps = 0
    with small():
        while kills < count:
            place = folder / f"run-{runs}"
            place.mkdir(parents=True)
            try:
                kills += _run(place, seed * 1_000_003 + runs, count - kills)
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, run {runs}: {error}") from error
            shutil.rmtree(place)
            runs, steps = runs + 1, steps + STEPS
    return {"kills": kills, "runs": runs, "steps": steps}


def _run(folder: Path, seed: int, most: int) -> int:
    draw = random.Random(seed)
    steps, states = plan(folder, draw, STEPS, most=30)
    whole, path = folder / "whole", folder / "killed"
    started = time.perf_counter()
    carry_out(whole, steps)
    pace = (time.perf_counter() - started) / len(steps)
    done = kills = 0
    while done < len(steps):

        def work(pipe: int, start: int = done) -> None:
            carry_out(path, steps[start:], lambda: os.write(pipe, b"."))

        seconds = draw.expovariate(1 / (4 * pace)) if kills < most else None
        killed, acknowledged = killed_after(victim(work), seconds)
        kills += killed
        done = _reached(states, held(path), done + len(acknowledged))
    settle(whole)
    settle(path)
    same(ending(path), ending(whole))
    return kills


def _reached(states: list[State], seen: State | None, least: int) -> int:
    """How many steps the store has: all acknowledged ones, and at most the one in flight."""
    if seen is None:
        assert least == 0, f"{least} steps were acknowledged, and there is no store"
        return 0
    for place in (least, least + 1):
        if place < len(states) and states[place] == seen:
            return place
    wanted = states[least]
    lost, more = sorted(wanted.keys() - seen.keys()), sorted(seen.keys() - wanted.keys())
    raise AssertionError(f"after {least} acknowledged steps rows {lost} are lost and {more} too many")
