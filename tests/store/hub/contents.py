"""What a Hub holds: repositories, their commits, and files by name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

LARGE = 1000  # bytes from which a file goes to the storage


def git_digest(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


@dataclass
class Commit:
    """Files of a repository, as `(is in the storage, content)`."""

    oid: str
    parent: str | None
    title: str
    files: dict[str, tuple[bool, bytes]]


@dataclass
class Repository:
    """Commits, and which of them the branches and tags stand for."""

    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    ignored: set[str] = field(default_factory=set)
    gated: bool = False

    def commit(
        self, files: dict[str, tuple[bool, bytes]], title: str = "by hand", branch: str = "main"
    ) -> str:
        parent = self.refs.get(branch)
        said = [parent, title, sorted((name, git_digest(data)) for name, (_, data) in files.items())]
        oid = hashlib.sha1(json.dumps([*said, len(self.commits)]).encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, files)
        self.refs[branch] = oid
        return oid

    def put(self, branch: str = "main", **files: bytes | None) -> str:
        """A commit by somebody else; `__` in a name stands for a dot, None removes."""
        named = {name.replace("__", "."): data for name, data in files.items()}
        now = dict(self.commits[self.refs[branch]].files)
        for name, data in named.items():
            now.pop(name, None)
            if data is not None:
                now[name] = (len(data) >= LARGE, data)
        return self.commit(now, branch=branch)

    def at(self, revision: str) -> Commit | None:
        return self.commits.get(self.refs.get(revision, revision))

    @property
    def head(self) -> dict[str, bytes]:
        """Files of the default branch, without the one the Hub makes itself."""
        files = self.commits[self.refs["main"]].files
        return {name: data for name, (_, data) in files.items() if name != ".gitattributes"}
