"""The folder of a save: whole or as it was, whatever stops the process, and nobody else's work in it."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import Programs
from saving import files, load, make, make_store, out

from msr_enhance.errors import EnhanceError
from msr_enhance.store.knowledge import KnowledgeStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeStore:
    return make_store(tmp_path_factory.mktemp("store") / "store")


def test_an_earlier_save_is_replaced_whole_and_nothing_else_is(store: KnowledgeStore, tmp_path: Path) -> None:
    model, folder = make(store), tmp_path / "deep" / "one"
    model.save_pretrained(folder)
    first = files(folder)
    with torch.no_grad():
        next(model.meta.parameters()).add_(1)
    model.save_pretrained(folder)
    assert files(folder).keys() == first.keys()
    assert files(folder) != first
    assert [path.name for path in folder.parent.iterdir()] == ["one"], "nothing is left beside it"
    (folder / "notes.txt").write_text("mine")
    kept = files(folder)
    with pytest.raises(EnhanceError, match=r"holds 'notes.txt'; allowed: .* Write another path"):
        model.save_pretrained(folder)
    assert files(folder) == kept
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("name", "data"), [("config.json", b'{"model_type": "bert"}'), ("model.safetensors", b"x")]
)
def test_somebody_elses_model_is_not_replaced(
    name: str, data: bytes, store: KnowledgeStore, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(EnhanceError, match="no model that this library saved"):
        make(store).save_pretrained(tmp_path)
    assert files(tmp_path) == {name: data}


def test_files_working_folders_and_links(
    store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(store)
    (tmp_path / "file").write_text("x")
    with pytest.raises(EnhanceError, match="is a file"):
        model.save_pretrained(tmp_path / "file")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for _ in range(2):
        model.save_pretrained(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert files(tmp_path / "real").keys() == {"config.json", "model.safetensors"}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(EnhanceError, match="works in"):
        model.save_pretrained(".")


def test_where_the_disk_cannot_exchange_two_folders(
    store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msr_enhance.wrap import saved_folder

    monkeypatch.setattr(saved_folder, "_EXCHANGE", 1 << 20)  # no such flag
    model = make(store)
    for _ in range(2):
        model.save_pretrained(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert torch.equal(out(load(tmp_path / "one", store)), out(model))


def test_a_full_disk_leaves_the_earlier_save(
    store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(store)
    model.save_pretrained(tmp_path / "one")
    before, real = files(tmp_path / "one"), os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 300:
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EnhanceError, match="No space left"):
        model.save_pretrained(tmp_path / "one")
    monkeypatch.undo()
    assert files(tmp_path / "one") == before
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_save_keeps_the_modes_of_the_one_it_replaces(
    exchange: bool, store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msr_enhance.wrap import saved_folder

    if not exchange:
        monkeypatch.setattr(saved_folder, "_EXCHANGE", 1 << 20)
    model, folder = make(store), tmp_path / "one"
    modes = {folder: 0o775, folder / "config.json": 0o664, folder / "model.safetensors": 0o600}
    folder.mkdir()
    folder.chmod(0o777)
    model.save_pretrained(folder)
    assert folder.stat().st_mode & 0o777 == 0o777, "that of the empty folder"
    for path, mode in modes.items():
        path.chmod(mode)
    model.save_pretrained(folder)
    assert {path: path.stat().st_mode & 0o777 for path in modes} == modes


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("/proc/x", "/proc/x cannot be written: no folder can be made there"),
        ("n" * 300, "cannot be written: File name too long"),
        ("a\0b", "write one without NUL"),
    ],
    ids=["proc", "long", "nul"],
)
def test_names_that_the_disk_refuses(name: str, match: str, store: KnowledgeStore, tmp_path: Path) -> None:
    with pytest.raises(EnhanceError, match=match):
        make(store).save_pretrained(name if name.startswith("/") else f"{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_that_the_disk_takes(store: KnowledgeStore, tmp_path: Path) -> None:
    for name in ("n" * 255, "é" * 127):
        make(store).save_pretrained(tmp_path / name)
        assert files(tmp_path / name).keys() == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    "name", ["./none", "none/", "~/none", "/none", "a/b/c", "a\\b", Path("own/model")], ids=str
)
def test_what_looks_like_a_folder_is_never_asked_of_the_hub(
    name: Any, store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("msr_enhance.wrap.repository.look_up", lambda *_: pytest.fail("the Hub was asked"))
    with pytest.raises(EnhanceError, match="There is no such folder: "):
        load(name, store)


def test_a_reader_beside_a_save_gets_one_of_the_two(
    store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another save takes the folder's place between the reader's two files, several times."""
    from msr_enhance.wrap import saved_folder

    model, real, left = make(store), saved_folder.open_tensors, [3]
    model.save_pretrained(tmp_path / "one")

    def late(path: Path, size: int) -> Any:
        if left[0]:
            left[0] -= 1
            with torch.no_grad():
                next(model.meta.parameters()).add_(1)
            model.save_pretrained(tmp_path / "one", backbone=left[0] != 1)
        return real(path, size)

    monkeypatch.setattr(saved_folder, "open_tensors", late)
    loaded = load(tmp_path / "one", store)
    assert left == [0]
    assert torch.equal(out(loaded), out(model))
    left[0] = 100
    with pytest.raises(EnhanceError, match=r"model\.safetensors is not as it was written"):
        load(tmp_path / "one", store)
    assert left == [95], "not for ever"


_KILLED = """
import os, signal, sys, torch
from in_house import SCENARIOS
from saving import fresh, knowledge, load, make

def ballasted(backbone):
    backbone.register_buffer("ballast", torch.ones(1000))
    return backbone

model = make(knowledge(), vocabulary={"scenario": SCENARIOS})
ballasted(model.backbone)
if EARLIER:
    model.save_pretrained("one")
model.backbone.ballast.fill_(2)
seen, step = [], 0
while not seen or seen[-1] != "done":
    step += 1
    if (child := os.fork()) == 0:
        left = [step]
        def count(event, _):
            left[0] -= event.startswith("os.") or event == "open"
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        model.save_pretrained("one")
        left[0] = -1
        os._exit(0)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    values = []
    if os.path.exists("one"):
        backbone = ballasted(fresh())
        load("one", knowledge(), backbone, vocabulary={})
        values = sorted(set(backbone.ballast.tolist()))
    seen.append(values if killed else "done")
print(seen[:-1], values)
"""


@pytest.mark.parametrize("earlier", [True, False])
def test_a_killed_save_leaves_a_whole_one_or_what_was_there(earlier: bool, tmp_path: Path) -> None:
    """Killed before each thing it does on the disk, one after another."""
    programs = Programs()
    try:
        said = programs.run(_KILLED.replace("EARLIER", str(earlier)), {}, tmp_path)
    finally:
        programs.close()
    seen, last = ast.literal_eval(f"[{said.replace('] [', '], [')}]")
    assert last == [2.0]
    assert len(seen) > 8, "it was killed at so many places"
    before = [1.0] if earlier else []
    assert all(values in (before, [2.0]) for values in seen)
    assert before in seen
