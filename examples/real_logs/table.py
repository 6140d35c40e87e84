"""The results of ``run.py`` as Markdown.

    python examples/real_logs/table.py OUT [OUT ...] > tables.md

Reads the runs in ``results``, ``commands.txt`` and the stores of each OUT; writes only what stands there.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from msr_enhance.store.knowledge import KnowledgeStore
from msr_enhance.train.comparison import Comparison
from msr_enhance.train.run import Run

ORDER = ("builtin", "token-mean", "category-frequency", "encoder")


def results(out: Path) -> dict[tuple[str, str], Comparison]:
    """The comparisons of one log.

    Args:
        out: A folder that ``run.py`` wrote to.

    Returns:
        (source, backbone) → comparison, all Shared Bottom ones first.
    """
    found = {}
    for path in (out / "results").glob("*/run.json"):
        source, _, backbone = path.parent.name.rpartition("-")
        found[source, backbone] = Run.load(path.parent).comparison
    return dict(sorted(found.items(), key=lambda entry: (entry[0][1], ORDER.index(entry[0][0]))))


def markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """A Markdown table.

    Args:
        header: Column names.
        rows: Cells, as long as the header.

    Returns:
        Lines, and an empty one.
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)] + [""]


def figure(value: float | None, sign: str = "") -> str:
    """A figure of four decimals, or a dash."""
    return "-" if value is None else f"{value:{sign}.4f}"


def difference(one: Comparison, arm: str) -> str:
    """An arm's mean AUC minus plain's, with the larger of its two errors; empty where it was not run."""
    if arm not in one.gaps:
        return ""
    gap = one.gaps[arm]["mean"]
    return f"{figure(gap.mean, '+')} ± {figure(max(gap.error_seeds or 0.0, gap.error_users or 0.0))}"


def summary(folders: list[Path]) -> list[str]:
    """One row a comparison: the mean AUC of plain, and each arm's difference with the larger of its errors.

    Args:
        folders: Folders that ``run.py`` wrote to.

    Returns:
        Lines of Markdown.
    """
    rows = []
    for out in folders:
        for (source, backbone), one in results(out).items():
            cells = [difference(one, arm) for arm in ("enhanced", "shuffled", "concat")]
            plain = one.scores["plain"]["mean"]
            first = [out.resolve().name, source, backbone, f"{figure(plain.auc)} ± {figure(plain.spread)}"]
            rows.append([*first, *cells])
    header = ["log", "vectors", "backbone", "plain, mean AUC", "enhanced - plain"]
    header += ["shuffled - plain", "concat - plain"]
    return ["## Summary", "", *markdown(header, rows)]


def facts(out: Path, one: Comparison) -> list[str]:
    """What a log is and how it was divided.

    Args:
        out: Its folder.
        one: Any of its comparisons.

    Returns:
        Lines.
    """
    store = KnowledgeStore.load(out / "builtin")
    rows = ", ".join(f"{count:,} {part}" for part, count in one.rows.items())
    count = [[f"{one.test_rows[name]:,}", f"{one.test_positives[name]:,}"] for name in one.scenarios]
    table = markdown(
        ["test part", *one.scenarios],
        [
            ["rows", *(pair[0] for pair in count)],
            ["positives", *(pair[1] for pair in count)],
            ["leak probe", *(figure(one.leak_probe[name]) for name in one.scenarios)],
            ["category probe", *(figure(one.category_probe[name]) for name in one.scenarios)],
        ],
    )
    split = f"Split: {store.provenance.facts['split']} Rows: {rows}."
    return [f"{split} {one.coverage:.1%} of the test rows have knowledge.", "", *table]


def scores(one: Comparison) -> list[str]:
    """AUC of every arm.

    Args:
        one: A comparison.

    Returns:
        A table: mean ± standard deviation over seeds, then the difference to plain with its two errors.
    """
    rows = []
    for arm, by in one.scores.items():
        aucs = [f"{figure(by[name].auc)} ± {figure(by[name].spread)}" for name in (*one.scenarios, "mean")]
        gap = one.gaps.get(arm, {}).get("mean")
        last = ["", "", ""]
        if gap is not None:
            last = [figure(gap.mean, "+"), figure(gap.error_seeds), figure(gap.error_users)]
        rows.append([arm, *aucs, *last, f"{one.learning_rates[arm]:g}"])
    return markdown(["arm", *one.scenarios, "mean", "mean - plain", "± seeds", "± users", "lr"], rows)


def prompts(out: Path, source: str) -> str:
    """How many users have knowledge, and how many prompts an encoder cut."""
    store = KnowledgeStore.load(out / source)
    statuses = Counter(store.statuses("user"))
    cut = sum(
        store.record("user", name).facts["reason"] == "cut at the window" for name in store.known("user")
    )
    said = ", ".join(f"{count:,} {status}" for status, count in statuses.items())
    return f"users: {said}" + (f"; {cut:,} prompts were cut at the encoder's window" if cut else "")


def report(out: Path) -> list[str]:
    """Everything about one log.

    Args:
        out: A folder that ``run.py`` wrote to.

    Returns:
        Lines of Markdown.
    """
    found = results(out)
    if not found:
        sys.exit(f"{out} holds no run in results/; write: python examples/real_logs/run.py DATASET RAW {out}")
    first = next(iter(found.values()))
    lines = [f"## {out.resolve().name}", "", *facts(out, first)]
    for (source, backbone), one in found.items():
        alphas = ", ".join(f"{level} {value:.2f}" for level, value in one.alphas.items())
        lines += [f"### {out.resolve().name}: {source}, {backbone}", ""]
        lines += [
            f"{prompts(out, source)}. Alpha: {alphas}. {sum(one.seconds.values()):.0f} s of training.",
            "",
        ]
        lines += scores(one) + [f"Warning: {warning}" for warning in one.warnings]
    commits = sorted({str(one.provenance["commit"])[:7] for one in found.values()})
    versions = ", ".join(f"{name} {version}" for name, version in first.provenance["versions"].items())
    settings = ", ".join(f"{name} {value}" for name, value in first.settings.items() if name != "backbone")
    lines += [f"Commit {', '.join(commits)}; {versions}. Seeds 0 to {first.seeds - 1}; {settings}.", ""]
    lines += ["```text", (out / "commands.txt").read_text(encoding="utf-8").strip(), "```", ""]
    return lines


if __name__ == "__main__":
    given = [Path(folder) for folder in sys.argv[1:]]
    print("\n".join(summary(given) + [line for folder in given for line in report(folder)]))
