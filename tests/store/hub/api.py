"""What the Hub itself answers about dataset repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from store.hub.answering import SIGNATURE, Handler, ranged
from store.hub.contents import LARGE, Repository, git_digest


class Api(Handler):
    """The Hub itself."""

    def answer(self) -> None:
        for method, pattern, do in _ROUTES:
            if method == self.command.replace("HEAD", "GET") and (found := re.fullmatch(pattern, self.route)):
                return do(self, **found.groupdict())
        return self.say(404, {"error": f"no route {self.route}"})

    @property
    def user(self) -> str | None:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return token if token in self.hub.tokens else None

    def repository(self, name: str, write: bool = False) -> Repository | None:
        """The repository, if it may be used; else the refusal is sent."""
        found = self.hub.repositories.get(name)
        if found is None or ((found.private or write) and not self.user):
            status = 404 if self.user else 401
            self.say(status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def create(self) -> None:
        said = json.loads(self.body)
        name = f"{said['organization']}/{said['name']}"
        url = {"url": f"{self.hub.url}/datasets/{name}"}
        if not self.user:
            return self.say(401, {"error": "Invalid username or password."})
        if name in self.hub.repositories:
            return self.say(409, {"error": "You already created this dataset repo", **url})
        visibility = said.get("visibility") or ("private" if said.get("private") else "public")
        self.hub.add(name, private=visibility == "private")
        return self.say(200, url)

    def whoami(self) -> None:
        if not self.user:
            return self.say(401, {"error": "Invalid username or password."})
        return self.say(200, {"type": "user", "name": "own", "orgs": []})

    def validate(self) -> None:
        front = json.loads(self.body)["content"].split("---\n")
        if len(front) > 1 and "\t" in front[1]:
            return self.say(400, {"errors": [{"message": "a tab in the metadata"}], "warnings": []})
        return self.say(200, {"errors": [], "warnings": []})

    def info(self, name: str, revision: str = "main") -> None:
        if (repository := self.repository(name)) is None:
            return None
        if (commit := repository.at(revision)) is None:
            return self.say(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        siblings = [
            {"rfilename": file} | (_facts(large, data) if self.query.get("blobs") else {})
            for file, (large, data) in commit.files.items()
        ]
        visible = {"private": repository.private, "gated": "auto" if repository.gated else False}
        return self.say(200, {"id": name, "sha": commit.oid, "siblings": siblings, "tags": [], **visible})

    def tree(self, name: str, revision: str) -> None:
        if (repository := self.repository(name)) is None:
            return None
        if (commit := repository.at(revision)) is None:
            return self.say(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        listed = [
            {"type": "file", "path": file, "size": len(data), "oid": git_digest(data)}
            for file, (_, data) in commit.files.items()
        ]
        return self.say(200, listed)

    def preupload(self, name: str, revision: str) -> None:
        if (repository := self.repository(name, write=True)) is None:
            return None
        if (commit := repository.at(revision)) is None:
            return self.say(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        files = []
        for said in json.loads(self.body)["files"]:
            large, data = commit.files.get(said["path"], (False, None))
            oid = None if data is None else hashlib.sha256(data).hexdigest() if large else git_digest(data)
            mode = "lfs" if said["size"] >= LARGE or said["path"].endswith(".safetensors") else "regular"
            ignore = said["path"] in repository.ignored
            files.append({"path": said["path"], "uploadMode": mode, "shouldIgnore": ignore, "oid": oid})
        return self.say(200, {"files": files})

    def batch(self, name: str) -> None:
        if (repository := self.repository(name, write=True)) is None:
            return None
        objects = []
        for said in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.storage}/{name}/{said['oid']}?{SIGNATURE}"}
            verify = {"href": f"{self.hub.url}/datasets/{name}.git/info/lfs/verify"}
            there = said["oid"] in repository.stored
            objects.append(said | ({} if there else {"actions": {"upload": upload, "verify": verify}}))
        return self.say(200, {"transfer": "basic", "objects": objects})

    def verify(self, name: str) -> None:
        if (repository := self.repository(name, write=True)) is None:
            return None
        said = json.loads(self.body)
        there = len(repository.stored.get(said["oid"], b"")) == said["size"]
        return self.say(200 if there else 404, {})

    def commit(self, name: str, revision: str) -> None:
        if (repository := self.repository(name, write=True)) is None:
            return None
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if revision not in repository.refs:
            return self.say(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        if header.get("parentCommit", repository.refs[revision]) != repository.refs[revision]:
            return self.say(412, {"error": "A commit has happened since. Please refresh and try again."})
        files = dict(repository.commits[repository.refs[revision]].files)
        for line in lines[1:]:
            said = line["value"]
            if line["key"] == "file":
                files[said["path"]] = (False, base64.b64decode(said["content"]))
            elif line["key"] == "lfsFile" and said["oid"] in repository.stored:
                files[said["path"]] = (True, repository.stored[said["oid"]])
            elif line["key"] == "deletedFile" and said["path"] in files:
                del files[said["path"]]
            else:
                return self.say(400, {"error": f"cannot do {line['key']} {said['path']}"})
        oid = repository.commit(files, header["summary"], revision)
        url = f"{self.hub.url}/datasets/{name}/commit/{oid}"
        return self.say(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def resolve(self, name: str, revision: str, file: str) -> None:
        if (repository := self.repository(name)) is None:
            return None
        if repository.gated:
            return self.say(403, {"error": "Access is restricted"}, {"X-Error-Code": "GatedRepo"})
        if (commit := repository.at(revision)) is None:
            return self.say(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        if file not in commit.files:
            return self.say(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        large, data = commit.files[file]
        head = {"X-Repo-Commit": commit.oid, "ETag": f'"{git_digest(data)}"'}
        if not large:
            return ranged(self, data, head)
        sha = hashlib.sha256(data).hexdigest()
        head |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{sha}"'}
        return self.say(302, b"", head | {"Location": f"{self.hub.storage}/{name}/{sha}?{SIGNATURE}"})


def _facts(large: bool, data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {"size": len(data), "blobId": git_digest(data)}
    if large:
        sha = hashlib.sha256(data).hexdigest()
        facts |= {"blobId": git_digest(sha.encode()), "lfs": {"sha256": sha, "size": len(data)}}
        facts["lfs"]["pointerSize"] = 134
    return facts


_NAME = r"(?P<name>[^/]+/[^/]+?)"
_ROUTES = [
    ("POST", "/api/repos/create", Api.create),
    ("GET", "/api/whoami-v2", Api.whoami),
    ("POST", "/api/validate-yaml", Api.validate),
    ("GET", f"/api/datasets/{_NAME}", Api.info),
    ("GET", f"/api/datasets/{_NAME}/revision/(?P<revision>.+)", Api.info),
    ("GET", f"/api/datasets/{_NAME}/tree/(?P<revision>.+)", Api.tree),
    ("POST", f"/api/datasets/{_NAME}/preupload/(?P<revision>.+)", Api.preupload),
    ("POST", f"/datasets/{_NAME}.git/info/lfs/objects/batch", Api.batch),
    ("POST", f"/datasets/{_NAME}.git/info/lfs/verify", Api.verify),
    ("POST", f"/api/datasets/{_NAME}/commit/(?P<revision>.+)", Api.commit),
    ("GET", f"/datasets/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", Api.resolve),
]
