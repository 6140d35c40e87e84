"""Trial: until a reader has shown that it answers, failed rows wait outside the store."""

from __future__ import annotations

from collections.abc import Sequence

from msr_enhance.errors import ModelError
from msr_enhance.store.record import KNOWN, LEVELS, Level, Record
from msr_enhance.store.writer import StoreWriter

# So many failures and not one answer: then it is the model or its settings. Fewer can well be the first
# users of a good run, or all users of a small part.
ENOUGH = 8


class Trial:
    """Commits the rows of a run; failed users only once a user, failed scenarios once anything is answered.

    Else a wrong setting would fill a store with zeros, and one bad first user would stop a good run.

    Args:
        writer: The store.
    """

    def __init__(self, writer: StoreWriter) -> None:
        self._writer = writer
        self._held: dict[Level, list[list[Record]]] = {level: [] for level in LEVELS}
        self._answered = {level for level, counts in writer.statuses().items() if counts.keys() & KNOWN}

    def waiting(self, level: Level) -> int:
        """Rows of a level that are done and not stored."""
        return sum(map(len, self._held[level]))

    def add(self, level: Level, records: list[Record]) -> None:
        """Take a batch, to be one commit: now, or after the reader's first answer.

        Args:
            level: ``user`` or ``scenario``.
            records: The rows.
        """
        self._held[level].append(records)
        if any(record.status in KNOWN for record in records):
            self._answered.add(level)
        if self._answered:
            self._commit("scenario")
        if "user" in self._answered:
            self._commit("user")

    def judge(self, level: Level) -> None:
        """End a chunk: give up on a reader that failed often enough, else store what did not fail.

        Failed scenarios do not end a run: there are few, and its users can still be read.

        Args:
            level: ``user`` or ``scenario``.

        Raises:
            ModelError: `ENOUGH` users failed and none was answered; none of them was stored.
        """
        if level == "user" and len(failed := self._failed("user")) >= ENOUGH:
            raise _error(f"first {len(failed):,} user", failed)
        held, self._held[level] = self._held[level], []
        for records in held:
            self._writer.append(level, [record for record in records if record.status != "failed"])
            if failed := [record for record in records if record.status == "failed"]:
                self._held[level].append(failed)

    def end(self, *, whole: bool) -> None:
        """End a run that asked too little to judge the reader by.

        Args:
            whole: The run is all there is to read. The failed rows of a part are stored: other parts may
                be well, and without them this one would never be done.

        Raises:
            ModelError: Every prompt of a whole run failed; none of them was stored.
        """
        failed = [record for level in LEVELS for record in self._failed(level)]
        if failed and whole and not self._answered:
            raise _error(f"{len(failed):,}", failed)
        for level in LEVELS:
            self._commit(level)

    def _commit(self, level: Level) -> None:
        for records in self._held[level]:
            self._writer.append(level, records)
        self._held[level].clear()

    def _failed(self, level: Level) -> list[Record]:
        return [record for records in self._held[level] for record in records if record.status == "failed"]


def _error(which: str, failed: Sequence[Record]) -> ModelError:
    return ModelError(
        f"All of the {which} prompts failed: {failed[0].facts['reason']}. None of them was stored. Change "
        "the model or its settings."
    )
