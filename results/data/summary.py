"""The tables and the chart of results/data, from the raw files beside this one.

python results/data/summary.py
"""

import csv
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
SETS = {"Brain_Tumor": "Brain Tumor MRI", "SIPADMEK": "SIPaKMeD cells"}
SPLITS = ("leaky", "clean")
SEEDS = (0, 1, 2)


def accuracies(name: str, split: str) -> np.ndarray:
    """Test accuracy in percent, one per seed."""
    return np.array(
        [100 * json.loads((HERE / f"{name}_{split}_{seed}.json").read_text())["accuracy"] for seed in SEEDS]
    )


def findings(name: str) -> dict[str, dict[str, str]]:
    """Check → its line of the audit."""
    with (HERE / f"{name}_audit.csv").open(newline="", encoding="utf-8") as stream:
        return {row["check"]: row for row in csv.DictReader(stream) if not row["images"]}


def shortcuts(name: str) -> dict[str, int]:
    """Trait → balanced accuracy in percent of a forest that sees nothing else."""
    return {
        check.removeprefix("shortcut: "): int(row["count"])
        for check, row in findings(name).items()
        if check.startswith("shortcut: ")
    }


def cell(row: dict[str, str]) -> str:
    """What a check found; bold where it is a warning."""
    count, detail = row["count"], row["detail"]
    if count == "0":
        return f"none {detail}" if detail.startswith("of ") else "none"
    between = "" if detail[0] == "%" else "; " if detail[0].isdigit() else " "
    text = f"{count}{between}{detail}"
    return f"**{text}**" if row["severity"] in ("warning", "error") else text


lines = [f"| check | {' | '.join(SETS.values())} |", "| --- | --- | --- |"]
audits = [findings(name) for name in SETS]
lines += [f"| {check} | {' | '.join(cell(audit[check]) for audit in audits)} |" for check in audits[0]]
(HERE / "audit.md").write_text("\n".join(lines) + "\n", encoding="utf-8")

lines = ["| data set | random split of images | groups kept whole | difference |", "| --- | ---: | ---: | ---: |"]
found = {name: {split: accuracies(name, split) for split in SPLITS} for name in SETS}
for name, title in SETS.items():
    leaky, clean = (found[name][split] for split in SPLITS)
    cells = [f"{each.mean():.1f} ± {each.std(ddof=1):.1f}" for each in (leaky, clean)]
    lines.append(f"| {title} | {cells[0]} | {cells[1]} | {leaky.mean() - clean.mean():+.1f} |")
(HERE / "leak.md").write_text("\n".join(lines) + "\n")

lowest = min(values.mean() - values.std(ddof=1) for of in found.values() for values in of.values())
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), gridspec_kw={"width_ratios": [1, 2]})
for k, split in enumerate(SPLITS):
    values = [found[name][split] for name in SETS]
    # Points: the axis does not start at 0, where bars would have to stand.
    axes[0].errorbar(
        np.arange(2) + 0.2 * k - 0.1,
        [v.mean() for v in values],
        [v.std(ddof=1) for v in values],
        fmt="o",
        label={"leaky": "random split", "clean": "groups kept whole"}[split],
        capsize=4,
    )
axes[0].set(
    xticks=range(2),
    xticklabels=SETS.values(),
    xlim=(-0.5, 1.5),
    ylim=(min(70, 10 * (lowest // 10)), 100),
    ylabel="test accuracy (%)",
    title="What a leak adds",
)
axes[0].legend(loc="lower right", fontsize=8)
for k, name in enumerate(SETS):
    traits = shortcuts(name)
    chance = {"Brain_Tumor": 25, "SIPADMEK": 20}[name]
    axes[1].bar(np.arange(len(traits)) + 0.4 * k - 0.2, traits.values(), 0.38, label=f"{SETS[name]} (chance {chance}%)")
axes[1].set(
    ylim=(0, 75),  # room for the legend
    xticks=range(len(traits)),
    xticklabels=traits,
    ylabel="balanced accuracy (%)",
    title="How well the class follows from non-medical traits",
)
axes[1].legend(fontsize=8)
figure.tight_layout()
figure.savefig(HERE / "data.png", dpi=130)
print("\n".join(lines))
