"""The single checks of `doctor`: each looks at one thing and says what to do where it is not right."""

from __future__ import annotations

import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from msr_enhance import machine

PACKAGE = "msr-enhance"
LITTLE_MEMORY, LITTLE_DISK = 4e9, 5e9


@dataclass(frozen=True)
class Check:
    """What was found of one thing.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``warn`` (some things will not work or be slow) or ``fail``.
        found: What was seen.
        do: What to do about it; empty where nothing is needed.
    """

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    do: str = ""


def guarded(name: str, check: Callable[[], list[Check]]) -> list[Check]:
    """The result of a check; one that breaks is a failed check, so that the others are still made."""
    try:
        return check()
    except Exception as error:  # whatever a broken installation raises is what the user must see
        said = " ".join(str(error).split())[:400]
        return [
            Check(
                name,
                "fail",
                f"{type(error).__name__}: {said}",
                "Reinstall what the message names; if that does not help, report it.",
            )
        ]


def libraries() -> list[Check]:
    """Every library the package needs, against the version it needs."""
    found = []
    for needed in _requirements(None):
        seen = _installed(needed.name)
        right = seen is not None and needed.specifier.contains(seen, prereleases=True)
        found.append(
            Check(
                needed.name,
                "ok" if right else "fail",
                seen or "not installed",
                "" if right else f"pip install '{needed}'",
            )
        )
    return found


def extras() -> list[Check]:
    """Every extra of the package but the one for its tests: whole, or the command that installs it."""
    found = []
    named = importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    for extra in sorted(set(named) - {"test"}):
        parts, missing = [], False
        for needed in _requirements(extra):
            seen = _installed(needed.name)
            missing |= seen is None or not needed.specifier.contains(seen, prereleases=True)
            parts.append(f"{needed.name} {seen or 'not installed'}")
        found.append(
            Check(
                f"extra {extra}",
                "warn" if missing else "ok",
                ", ".join(parts) or "nothing to install",
                f"pip install '{PACKAGE}[{extra}]'" if missing else "",
            )
        )
    return found


def resources() -> list[Check]:
    """Cores, memory, and the disks of the working folder, of the model cache and of temporary files."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cores, memory = machine.usable_cores(), machine.memory()
    found = [Check("CPU cores", "ok", f"{cores:g} usable by this process")]
    if memory is None:
        found.append(Check("memory", "warn", "this system does not say how much there is"))
    else:
        text = f"{machine.size_text(memory[0])}, {machine.size_text(memory[1])} free (container limits count)"
        low = memory[1] < LITTLE_MEMORY
        found.append(Check("memory", "warn" if low else "ok", text, "Only small models fit." if low else ""))
    places = {
        "disk of stores": (Path.cwd(), "Write --out on a disk with more room."),
        "disk of models": (Path(HF_HUB_CACHE), "Set HF_HOME to a disk with more room."),
        "disk of temporary files": (Path(tempfile.gettempdir()), "Set TMPDIR to a disk with more room."),
    }
    for name, (path, do) in places.items():
        disk = machine.free_disk(path)
        if disk is None:
            found.append(Check(name, "warn", f"{path}: free space unknown"))
            continue
        low = disk[1] < LITTLE_DISK
        text = f"{path}: {machine.size_text(disk[1])} free"
        found.append(Check(name, "warn" if low else "ok", text, do if low else ""))
    return found


def gpus(root: Path = Path("/")) -> list[Check]:
    """Every GPU that torch can use; says so where one is there that it cannot use."""
    import torch

    if not torch.cuda.is_available():
        if any((root / place).exists() for place in ("dev/nvidia0", "dev/kfd")):
            text = f"a GPU is there, but torch {torch.__version__} cannot use it"
            return [Check("GPU", "warn", text, "Install the torch build for this driver: pytorch.org.")]
        return [Check("GPU", "ok", "none: models run on the CPU")]
    found = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(
            Check(
                f"GPU {number}",
                "ok",
                f"{facts.name}, {machine.size_text(total)}, {machine.size_text(free)} free, "
                f"compute capability {facts.major}.{facts.minor}",
            )
        )
    return found


def hub(online: bool) -> list[Check]:
    """Where models are kept, whether the Hub may be asked, whether a token is set (never which)."""
    from huggingface_hub import HfApi, constants, get_token

    offline = constants.HF_HUB_OFFLINE
    kept = Path(constants.HF_HUB_CACHE)
    models = len(list(kept.glob("models--*"))) if kept.is_dir() else 0
    found = [
        Check("model cache", "ok", f"{kept}, {models} models"),
        Check(
            "Hub",
            "ok",
            "offline mode: only models that are already in the cache" if offline else "may be asked",
        ),
        Check("Hub token", "ok", "set" if get_token() else "not set; only gated and private models need one"),
    ]
    if online:
        started = time.perf_counter()
        try:
            HfApi().model_info("THUDM/chatglm2-6b", timeout=10)
            found.append(Check("Hub answers", "ok", f"{time.perf_counter() - started:.1f} s"))
        except Exception as error:  # connection errors of whichever HTTP library the Hub's client uses
            said = " ".join(str(error).split())[:300]
            text = f"{type(error).__name__}: {said}"
            do = "Unset HF_HUB_OFFLINE." if offline else "Check network, proxy (HTTPS_PROXY) and HF_ENDPOINT."
            found.append(Check("Hub answers", "fail", text, f"{do} A local folder needs no network."))
    return found


def round_trip() -> list[Check]:
    """The built-in model answers, and what it answered comes back from a store, in a temporary folder."""
    import numpy as np

    from msr_enhance.data.table import InteractionTable
    from msr_enhance.extract.extractor import KnowledgeExtractor
    from msr_enhance.llm.huggingface import HuggingFaceLLM
    from msr_enhance.store.knowledge import KnowledgeStore

    started = time.perf_counter()
    llm = HuggingFaceLLM.load("builtin", max_new_tokens=4)
    (answer,) = llm.answer(["In shop: plain kit | cooking."])
    taken = f"{time.perf_counter() - started:.1f} s"
    if answer.status != "ok" or not np.isfinite(answer.vector).all():
        return [Check("built-in model", "fail", f"{answer.status}: {answer.reason}", "Reinstall torch.")]
    found = [Check("built-in model", "ok", f"one prompt answered, {answer.answer_tokens} tokens, {taken}")]
    started = time.perf_counter()
    rows = range(240)
    log: dict[str, list[int | str]] = {
        "user_id": [row % 4 for row in rows],
        "item_id": [row % 6 for row in rows],
        "scenario": [("feed", "shop")[row // 4 % 2] for row in rows],
        "label": [row // 3 % 2 for row in rows],
        "timestamp": list(rows),
        "title": [f"item {row % 6}" for row in rows],
    }
    table = InteractionTable.from_arrays(log)
    with tempfile.TemporaryDirectory(prefix="msr-enhance-doctor-") as folder:
        KnowledgeExtractor(llm, history=5).extract(table, Path(folder) / "store")
        store = KnowledgeStore.load(Path(folder) / "store")
        record = store.record("user", table.user_ids[0])
        (again,) = llm.answer([record.prompt])
        same = np.allclose(record.vector, again.vector, atol=1e-3, rtol=1e-3)
        found.append(
            Check(
                "store",
                "ok" if same and record.text == again.text else "fail",
                f"{len(store.ids('user'))} users written, read and checked, "
                f"{time.perf_counter() - started:.1f} s"
                if same
                else "what was read is not what was written",
                "" if same else "Check the disk and memory of this machine.",
            )
        )
    return found


def _requirements(extra: str | None) -> Iterator[Requirement]:
    """What the package needs on this machine: always (None), or only for one extra."""
    for line in importlib.metadata.requires(PACKAGE) or []:
        needed = Requirement(line)
        always = needed.marker is None or needed.marker.evaluate({"extra": ""})
        wanted = always if extra is None else not always and _asked(needed, extra)
        if wanted:
            needed.marker = None
            yield needed


def _asked(needed: Requirement, extra: str) -> bool:
    return needed.marker is not None and needed.marker.evaluate({"extra": extra})


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
