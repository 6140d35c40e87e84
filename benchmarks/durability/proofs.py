"""The proofs: which there are, what each does, and how often it does it on a push and for the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.durability import (
    every_call,
    faults,
    flips,
    fuzz,
    kills,
    leaks,
    machine,
    power_loss,
    readers,
    resume,
    scale,
    writers,
)

Figures = dict[str, int | float]


class Proof(NamedTuple):
    """A promise, and the program that tries to break it.

    Attributes:
        prove: Runs it in a folder with a count and a seed; raises AssertionError where the promise breaks.
        what: What is done, in a line of the page.
        quick: The count on every push.
        full: The count behind the published page.
    """

    prove: Callable[[Path, int, int], Figures]
    what: str
    quick: int
    full: int


PROOFS = {
    "kills": Proof(
        kills.prove,
        "`kill -9` at random moments of appends, drops, merges, compaction; no acknowledged row "
        "lost or twice, same files at the end",
        200,
        10_000,
    ),
    "every_call": Proof(
        every_call.prove,
        "`kill -9` before every n-th call to the file system of each kind of commit; old or new, "
        "and the same command goes on",
        3,
        1,
    ),
    "resume": Proof(
        resume.prove,
        "extractions killed at random moments; the same files, byte for byte, as without kills",
        50,
        1_000,
    ),
    "faults": Proof(
        faults.prove,
        "each call fails once and for good with EIO, ENOSPC, EACCES, short writes; only declared errors, "
        "nothing lost, goes on",
        1_200,
        1_000_000,
    ),
    "power_loss": Proof(
        power_loss.prove,
        "power cut after each event of recorded histories, unsynced names and data lost in all ways; "
        "13 broken protocols are caught",
        1,
        200,
    ),
    "writers": Proof(
        writers.prove,
        "two and four writers of one store, `flock` working and doing nothing; nothing lost, losers told",
        2,
        50,
    ),
    "readers": Proof(
        readers.prove,
        "seconds of four readers verifying during writes and compaction; no error, no older version, no mix",
        10,
        600,
    ),
    "flips": Proof(
        flips.prove,
        "each byte of tiny stores and random bits of a larger one flipped; refused, or what is read is right",
        1_000,
        100_000,
    ),
    "fuzz": Proof(
        fuzz.prove,
        "changed stores with every checksum repaired; only declared errors, each in 1 s and 64 MiB",
        100_000,
        10_000_000,
    ),
    "machine": Proof(
        machine.prove,
        "random machines of 30 steps against a dictionary: append, drop, merge, compact, forget, kills, "
        "old readers",
        300,
        20_000,
    ),
    "scale": Proof(
        scale.prove,
        "25 million users x 4096 in files with holes, opened in a fresh process; every place right",
        25_000_000,
        25_000_000,
    ),
    "leaks": Proof(
        leaks.prove,
        "rounds of opening, reading, writing and refusals; files, threads, memory, temporary files flat",
        1_000,
        20_000,
    ),
}
