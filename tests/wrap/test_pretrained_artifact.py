"""A model that was saved in format 1.0 and committed: it must load, answer and be saved again as it is.

If a test here fails after a change, files of users no longer load or are no longer written the same. Then
raise `FORMAT_VERSION`, read both, and add a new artifact beside this one (`make_artifact.py`).
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from make_artifact import ARTIFACT, USERS, Guarded
from safetensors.torch import load_file

from msr_enhance.errors import EnhanceError
from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.wrap import saved
from msr_enhance.wrap.model import EnhancedModel

ROOT = Path(__file__).parents[2]


def loaded(users: list[int] = USERS) -> EnhancedModel:
    store = KnowledgeStore.load(ARTIFACT / "store")
    torch.manual_seed(77)
    backbone = Guarded().eval()
    return EnhancedModel.from_pretrained(ARTIFACT / "model", backbone, store, vocabulary={"user": users})


def test_it_answers_as_it_did() -> None:
    example = load_file(ARTIFACT / "example.safetensors")
    expected = example.pop("expected")
    with torch.no_grad():
        torch.testing.assert_close(loaded()(**example), expected, atol=1e-6, rtol=1e-6)
        with loaded().disabled() as model:
            assert not torch.allclose(model(**example), expected), "the layers have a part in it"


def test_it_is_saved_again_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote = json.loads((ARTIFACT / "model/config.json").read_bytes())["library_version"]
    monkeypatch.setattr(importlib.metadata, "version", lambda _: wrote)
    loaded().save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (ARTIFACT / "model" / name).read_bytes()


def test_it_says_its_version() -> None:
    config = json.loads((ARTIFACT / "model/config.json").read_bytes())
    assert (config["format"], config["format_version"]) == ("msr-enhance-model", "1.0")
    assert saved.FORMAT_VERSION == "1.0", (
        "a new version needs an artifact of its own, and this one still loads"
    )


def test_another_vocabulary_is_still_told_apart() -> None:
    with pytest.raises(EnhanceError, match="another one"):
        loaded(USERS[::-1])


def test_it_is_small_holds_no_ids_and_is_shipped() -> None:
    sizes = [path.stat().st_size for path in ARTIFACT.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) < 20_000
    config = (ARTIFACT / "model/config.json").read_text()
    assert not re.search(r"\b40\b", config), "a user id"
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, ARTIFACT.rglob("*"))], cwd=ROOT, capture_output=True, text=True
    )
    assert ignored.stdout == ""
