"""Files to a repository of the Hub, a store's or a model's: private unless told otherwise, in one commit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from msr_enhance.errors import StoreError
from msr_enhance.store.hub.asking import SILENCE, asked, no_repository, reading
from msr_enhance.store.hub.cache import Kind
from msr_enhance.store.hub.outgoing import git_digest, refuse_unless_plain
from msr_enhance.store.hub.repository import is_bare, parse_name

_TOGETHER = 16
_Answer = TypeVar("_Answer")
_STORE = re.compile(r"manifest-[1-9][0-9]{0,17}\.json")


@dataclass(frozen=True)
class Pushed:
    """What a push has done.

    Attributes:
        commit: The commit that holds the files; without a change the one that was there.
        url: Address of the repository.
        private: Whether only its owners can read it, read back after the push.
        added: Names of the files that are new or changed.
        deleted: Names of the files that were removed.
        uploaded_bytes: Size of what was added; parts that an interrupted push had left are not sent again.
    """

    commit: str
    url: str
    private: bool
    added: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    uploaded_bytes: int = 0


def push_files(
    repo: str,
    folder: Path,
    names: Iterable[str],
    *,
    message: str,
    delete: re.Pattern[str] | Callable[[str], object] | None = None,
    ours: re.Pattern[str] = _STORE,
    private: bool = True,
    public_allowed: bool = False,
    token: str | None = None,
    revision: str | None = None,
    say: Callable[[str], None] | None = None,
    kind: Kind = "dataset",
) -> Pushed:
    """Put these files, and no others, into a repository by one commit on top of what it holds.

    Readers see all of the push or nothing. An interrupted one can be repeated: what had arrived is not
    sent again. A repository that is not there is made.

    Args:
        repo: ``owner/name``; see `parse_name`.
        folder: Where the files are.
        names: Their names; only plain files at the top.
        message: Title of the commit.
        delete: Which other files at the top of the repository are ours and are removed: a pattern of
            the whole name, or a function.
        ours: Names by which a repository is known as ours; one that holds files and none of these is
            somebody's other work, and refused.
        private: Whether a repository that has to be made is private. The visibility of one that is
            there is never changed.
        public_allowed: Whether others may read the repository. Else a public one is refused.
        token: Token of the Hub, instead of the one of `hf auth login`.
        revision: Branch, which must be there; the default branch where it is missing.
        say: Is told what happens.
        kind: Of the repository: a store's is a dataset.

    Returns:
        What was done.

    Raises:
        StoreError: A file, the repository or its visibility is not as asked for, or somebody else has
            pushed meanwhile; nothing of this push is visible, unless the error says so.
        StoreIOError: The Hub failed; the same command goes on.
    """
    if not (private or public_allowed):
        raise StoreError("private=False makes a repository that all can read; it needs public_allowed=True.")
    say = say or (lambda _: None)
    with reading(folder):
        push = _Push(repo, folder, sorted(set(names)), delete, revision, token, kind)
        return _pushed(push, message, ours, private, public_allowed, say)


def _pushed(
    push: _Push,
    message: str,
    ours: re.Pattern[str],
    private: bool,
    public_allowed: bool,
    say: Callable[[str], None],
) -> Pushed:
    head = push.head_or_created(private)
    push.refuse_public(head, public_allowed, "Nothing was sent.")
    push.refuse_unrelated(head, ours)
    add, stale = push.missing(head)
    if not add and not stale:
        say(f"{push.repo} holds all of this already, at commit {head.sha}; nothing to push.")
        return Pushed(head.sha, push.url, head.private)
    size = sum(push.additions[name].upload_info.size for name in add)
    for start in range(0, len(add), _TOGETHER):
        say(f"{push.repo}: {start:,} of {len(add):,} files ({size:,} bytes) are there.")
        push.send(add[start : start + _TOGETHER])
    # The files may have taken hours, and nobody can see them before the commit.
    push.refuse_public(push.state(push.revision), public_allowed, "Nothing of this push is visible.")
    made = push.commit(add, stale, message, head.sha)
    after = push.state(made)
    if not after.private and not public_allowed:
        raise StoreError(
            f"{push.repo} IS PUBLIC since this push: everybody can read commit {made}. Somebody has changed "
            f"that meanwhile. Make it private now: {push.url}/settings. Where nobody may have seen it, "
            "delete the repository there: a later commit does not take the files away."
        )
    left, _ = push.missing(after)
    if left:
        raise StoreError(
            f"The Hub left files out of commit {made}: {', '.join(left[:5])}. A .gitignore there may name "
            "them; remove it and push again."
        )
    say(f"{push.repo} is at commit {made}: {len(add):,} files added, {len(stale):,} removed.")
    return Pushed(made, push.url, after.private, tuple(add), tuple(stale), size)


class _Push:
    """Files here and in one repository."""

    def __init__(
        self,
        repo: str,
        folder: Path,
        names: list[str],
        delete: re.Pattern[str] | Callable[[str], object] | None,
        revision: str | None,
        token: str | None,
        kind: Kind,
    ) -> None:
        from huggingface_hub import CommitOperationAdd, HfApi, constants

        name = parse_name(repo, revision, kind)
        self.repo, self.revision, self.token = name.repo, name.revision, token
        if re.fullmatch(r"[0-9a-f]{40}", self.revision or ""):
            raise StoreError(f"{self.revision} is a commit; a push goes to a branch. Name one, or none.")
        self.kind, self._what = kind, "store" if kind == "dataset" else "model"
        self.url = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{self.repo}"
        for file in names:
            refuse_unless_plain(folder, file)
        self._folder = folder
        self._stale = delete.fullmatch if isinstance(delete, re.Pattern) else delete
        self._api = HfApi()
        # They compute their digests once, when those are asked for.
        self.additions = {
            file: CommitOperationAdd(path_in_repo=file, path_or_fileobj=str(folder / file)) for file in names
        }

    def head_or_created(self, private: bool) -> Any:
        """What the branch holds; the repository is made where it is not there."""
        from huggingface_hub.errors import RepositoryNotFoundError

        def look() -> Any:
            try:
                return self._info(self.revision)
            except RepositoryNotFoundError:
                return None

        found = self._ask(look, self.revision)
        if found is not None:
            return self._whole(found)
        if self.revision not in (None, "main"):  # which a new repository would not have
            raise StoreError(
                f"{no_repository(self.repo, self.kind)} A push to branch {self.revision!r} makes neither; "
                "push without a revision first, and make the branch on the Hub."
            )
        self._ask(
            # Said in so many words: by default the Hub makes a public one.
            lambda: self._api.create_repo(
                self.repo, private=private, repo_type=self.kind, exist_ok=True, token=self.token
            )
        )
        return self.state(self.revision)

    def state(self, revision: str | None) -> Any:
        """Commit, visibility and files at a revision."""
        return self._whole(self._ask(lambda: self._info(revision), revision))

    def refuse_public(self, state: Any, allowed: bool, visible: str) -> None:
        """Stop where others can read the repository and that is not allowed."""
        if not state.private and not allowed:
            raise StoreError(
                f"{self.repo} is public: everybody could read the {self._what}. {visible} Make it private "
                f"({self.url}/settings), push to another name, or allow a public push."
            )

    def refuse_unrelated(self, state: Any, ours: re.Pattern[str]) -> None:
        """Stop where the repository holds somebody's other work, which a push would overwrite in part."""
        there = sorted(file.rfilename for file in state.siblings)
        others = [name for name in there if name not in (".gitattributes", "README.md")]
        if others and not any(map(ours.fullmatch, others)):
            raise StoreError(
                f"{self.repo} is no {self._what}: it holds {len(others):,} other files, the first of them "
                f"{others[0][:80]!r}. Nothing was sent. Push to another name, or remove these files first."
            )

    def missing(self, state: Any) -> tuple[list[str], list[str]]:
        """Names that the repository has not, or in another content; and those that should not be there."""
        there = {file.rfilename: file for file in state.siblings}
        add = [name for name in self.additions if name not in there or not self._same(there[name])]
        others = sorted(name for name in there if is_bare(name) and name not in self.additions)
        return add, [name for name in others if self._stale is not None and self._stale(name)]

    def send(self, names: list[str]) -> None:
        """Send the large ones among some files; they stay unseen until a commit names them."""
        self._ask(
            lambda: self._api.preupload_lfs_files(
                self.repo,
                [self.additions[name] for name in names],
                token=self.token,
                repo_type=self.kind,
                revision=self.revision,
            ),
            self.revision,
            again=lambda _: False,  # the Hub's client does so by itself here
        )

    def commit(self, add: list[str], stale: list[str], message: str, parent: str) -> str:
        """Make everything visible at once, on top of one commit and no other."""
        from huggingface_hub import CommitOperationDelete
        from huggingface_hub.errors import HfHubHTTPError

        removals = [CommitOperationDelete(path_in_repo=name, is_folder=False) for name in stale]

        def once() -> str:
            try:
                made = self._api.create_commit(
                    self.repo,
                    operations=[*removals, *(self.additions[name] for name in add)],
                    commit_message=message,
                    token=self.token,
                    repo_type=self.kind,
                    revision=self.revision,
                    parent_commit=parent,
                )
                return str(made.oid)
            except HfHubHTTPError as error:
                if error.response.status_code != 412:
                    raise
            # Another commit came first; or this one, whose answer was lost.
            now = self.state(self.revision)
            if any(self.missing(now)):
                raise StoreError(
                    f"Conflict: {self.repo} was at commit {parent} when this push began and is at {now.sha} "
                    "now. Nothing of this push is visible. Look at what the other push did, and repeat this "
                    "one; what was sent is not sent again."
                )
            return str(now.sha)

        return self._ask(once, self.revision)

    def _ask(
        self,
        call: Callable[[], _Answer],
        revision: str | None = None,
        again: Callable[[Exception], bool] | None = None,
    ) -> _Answer:
        return asked(call, self.repo, revision, token=self.token, again=again, kind=self.kind)

    def _info(self, revision: str | None) -> Any:
        asked_for: dict[str, Any] = {"revision": revision, "repo_type": self.kind, "token": self.token}
        return self._api.repo_info(self.repo, files_metadata=True, timeout=SILENCE, **asked_for)

    def _whole(self, info: Any) -> Any:
        commit = re.fullmatch(r"[0-9a-f]{40}", info.sha or "")
        if not commit or not isinstance(info.private, bool) or info.siblings is None:
            raise StoreError(f"{self.url} does not say its commit, visibility and files. Check HF_ENDPOINT.")
        return info

    def _same(self, there: Any) -> bool:
        here = self.additions[there.rfilename].upload_info
        if there.size != here.size:
            return False
        if there.lfs is not None:
            return bool(there.lfs.sha256 == here.sha256.hex())
        return bool(there.blob_id == git_digest(self._folder / there.rfilename, here.size))
