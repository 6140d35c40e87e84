"""The `doctor` command: what this machine can run, how fast it is, and what is missing."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import typer

from msr_enhance import machine
from msr_enhance.cli import model_guide
from msr_enhance.cli.checks import (
    PACKAGE,
    Check,
    extras,
    gpus,
    guarded,
    hub,
    libraries,
    resources,
    round_trip,
)
from msr_enhance.cli.output import emit, say, show, table
from msr_enhance.llm.estimate import WITHIN
from msr_enhance.llm.hardware import Hardware, default_device, default_dtype, measure

Speed = Callable[[str, str], Hardware]


def run(as_json: bool, *, online: bool = False) -> None:
    """Check this machine and print what was found.

    Args:
        as_json: One JSON object on stdout and nothing else.
        online: Also ask the Hub once; otherwise no network is touched.

    Raises:
        typer.Exit: With code 1 if a check failed.
    """
    started = time.perf_counter()
    say("doctor: looking at libraries, hardware and speed; a few seconds")
    sections: dict[str, list[Check]] = {
        "installation": [
            Check("Python", "ok", platform.python_version()),
            *guarded("libraries", libraries),
            *guarded("extras", extras),
        ],
        "hardware": [*guarded("machine", resources), *guarded("GPU", gpus)],
        "models": guarded("Hub", partial(hub, online)),
        "self-check": guarded("built-in model and store", round_trip),
    }
    speeds: list[Hardware] = []
    sections["speed"] = guarded("speed", partial(_speeds, speeds))
    guide = [model_guide.fits(speed, machine.memory_of(speed.device)) for speed in speeds]
    data: dict[str, Any] = {
        "ok": all(check.status != "fail" for checks in sections.values() for check in checks),
        "checks": {name: [vars(check) for check in checks] for name, checks in sections.items()},
        "speed": [vars(speed) for speed in speeds],
        "models": [fit.data() for fits in guide for fit in fits],
        "model_guide": _counted(),
        "not_checked": _unchecked(online),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if as_json:
        emit(data)
    else:
        _tell(sections, guide, data)
    if not data["ok"]:
        raise typer.Exit(1)


def _speeds(found: list[Hardware]) -> list[Check]:
    """Measure the device and dtype that `extract` takes by default, and on a CPU half precision beside it."""
    import torch

    device = default_device(None)
    dtype = default_dtype(None, device, "bfloat16")
    found += [measure(device, one) for one in dict.fromkeys((dtype, "bfloat16"))]
    chosen, other = found[0], found[-1]
    where = f"threads: {torch.get_num_threads()}" if device == "cpu" else "default GPU"
    kind = dtype if device == "cpu" else "the checkpoint's own dtype (measured in bfloat16)"
    checks = [Check("default of extract", "ok", f"device {device}, {kind}")]
    for speed in found:
        checks.append(
            Check(
                f"products in {speed.dtype}",
                "ok",
                f"{_rate(speed.flops)}FLOP/s ({where}); memory {speed.bandwidth / 1e9:,.0f} GB/s",
            )
        )
    if device == "cpu":
        ratio = other.flops / chosen.flops
        text = f"bfloat16 is {ratio:.1f} times as fast as float32 here and takes half the memory"
        faster = ratio > 1.3
        do = "--dtype bfloat16 is worth a try; its states are a little less exact." if faster else ""
        checks.append(Check("half precision", "ok", text, do))
        cores = machine.usable_cores()
        if torch.get_num_threads() > cores + 0.5:
            text = f"torch uses {torch.get_num_threads()} threads on {cores:g} usable cores"
            checks.append(Check("threads", "warn", text, f"Set OMP_NUM_THREADS={max(1, int(cores))}."))
    return checks


def _rate(number: float) -> str:
    return f"{number / 1e12:,.1f} T" if number >= 1e12 else f"{number / 1e9:,.0f} G"


def _counted() -> str:
    return (
        f"prompts of {model_guide.PROMPT_TOKENS:,} tokens, answers of {model_guide.ANSWER_TOKENS}; memory: "
        "weights, the keys and values of the batch that `extract` would read at once, working space; time: "
        f"an estimate, within a factor of {WITHIN:g}"
    )


def _unchecked(online: bool) -> list[str]:
    """What a good result does not promise."""
    found = [] if online else ["the network and the Hub (--online asks once)"]
    found += ["any model but the built-in one", "other machines of a cluster"]
    if "HF_TOKEN" in os.environ:
        found.append("whether the Hub accepts the token")
    return found


def _tell(sections: dict[str, list[Check]], guide: list[list[model_guide.Fit]], data: dict[str, Any]) -> None:
    for name, checks in sections.items():
        show(f"{name}")
        for check in checks:
            show(f"  {check.status:<5} {check.name}: {check.found}")
            if check.do:
                show(f"        -> {check.do}")
    if guide:
        show("\nmodels that fit into the free memory")
        first = guide[0]
        header = ["model", "parameters"]
        rows = [[fit.model, f"{fit.parameters / 1e9:.2f} B"] for fit in first]
        for fits in guide:
            header += [f"{fits[0].dtype} needs", "fits", "a user"]
            for row, fit in zip(rows, fits, strict=True):
                taken = "-" if fit.fits is False else machine.time_text(fit.seconds_a_user)
                row += [machine.size_text(fit.needs), _yes(fit.fits), taken]
        show(table(header, rows))
        show(f"({data['model_guide']})")
    show(f"\nnot checked: {'; '.join(data['not_checked'])}")
    counts = {
        status: sum(check.status == status for checks in sections.values() for check in checks)
        for status in ("ok", "warn", "fail")
    }
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    show(f"{PACKAGE} doctor: {said} ({data['seconds']} s)")


def _yes(fits: bool | None) -> str:
    return "?" if fits is None else "yes" if fits else "no"
