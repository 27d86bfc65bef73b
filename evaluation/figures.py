"""Figures of certification and evaluation results. They need no display; the same data gives the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

from common.figures import missing_letters
from common.lines import shown
from evaluation.certificates import Certification, accuracy_curve, by_sigma, certified_accuracy
from evaluation.robustness import Claim, accuracy_under_attack, certified_accuracy_at

# Okabe & Ito (2008): told apart with any colour vision; without its yellow, too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LONGEST = 40  # letters of a name in a figure
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "text.parse_math": False,  # a name may hold a $
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


def certified_accuracy_png(certifications: Sequence[Certification], note: str = "") -> bytes:
    """Certified accuracy against radius: one panel per sigma, one step curve per name (up to the largest of --radii),
    and `note` above each panel."""
    import matplotlib.style  # slow to import: only where something is drawn
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(each.name for each in certifications))
    groups = by_sigma(certifications)
    columns = 2 if len(groups) == 4 else min(len(groups), 3)
    rows = -(-len(groups) // columns)
    width = 4.8 if columns == 1 else 3.2 * columns
    # As many names beside each other in the legend as fit, at some .07 inch per letter.
    headings = {name: shown(name, LONGEST) for name in names}
    legend_columns = min(len(names), max(1, int(width / (0.6 + 0.07 * max(map(len, headings.values()))))))
    legend_height = 0.2 * -(-len(names) // legend_columns)

    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width, 2.8 * rows + legend_height), dpi=200, layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False)
        lines = {}
        for panel, (sigma, group) in zip(panels.flat, groups.items(), strict=False):
            for each in group:
                look = names.index(each.name)
                r, accuracy = accuracy_curve(each.rows, each.asked)
                (lines[each.name],) = panel.plot(
                    r,
                    100 * accuracy,
                    drawstyle="steps-pre",
                    color=COLOURS[look % len(COLOURS)],
                    linestyle=DASHES[look % len(DASHES)],
                    linewidth=1.5,
                    solid_joinstyle="miter",
                )
            sizes = sorted({len(each.rows) for each in group})
            images = f"{sizes[0]} images" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]} images"
            panel.set_title("\n".join(filter(None, [note, f"σ = {sigma:g}  ({images})"])))
            panel.set_xlabel("L2 radius (pixel scale [0, 1])")
            panel.set_xlim(left=0)
        highest = max(100 * certified_accuracy(each.rows, 0) for each in certifications)
        panels[0, 0].set_ylim(0, min(102, max(5, 1.05 * highest)))
        for panel in panels[:, 0]:
            panel.set_ylabel("Certified accuracy (%)")
        for panel in panels.flat[len(groups) :]:
            panel.remove()
        legend = figure.legend(
            lines.values(), [str(look) for look in range(len(lines))], loc="outside lower center", ncols=legend_columns
        )
        for text, name in zip(legend.get_texts(), lines, strict=True):
            text.set_text(headings[name])  # given at once, one that begins with _ would be left out
        return _png(figure)


def evaluation_png(report: dict, classes: Sequence[str], title: str) -> bytes:
    """The confusion matrix of a report of `metrics.summarize` and, where it has one, its reliability diagram."""
    import matplotlib.style
    from matplotlib.figure import Figure

    matrix = report["confusion"]
    named = [shown(name, LONGEST) for name in [*classes, "ABSTAIN"][: len(matrix[0])]]
    panels = 2 if "reliability" in report else 1
    with matplotlib.style.context(["default", STYLE, {"axes.grid": False}]):
        figure = Figure(figsize=(4.4 * panels, 3.8), dpi=200, layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        shares = [[value / max(1, sum(row)) for value in row] for row in matrix]
        axes[0].imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                colour = "white" if shares[i][j] > 0.5 else "black"
                axes[0].text(j, i, str(value), ha="center", va="center", color=colour)
        axes[0].set_xticks(range(len(named)), named, rotation=30, ha="right")
        axes[0].set_yticks(range(len(classes)), named[: len(classes)])
        axes[0].set(xlabel="predicted", ylabel="true", title=f"accuracy {report['accuracy']:.1%}")
        if panels == 2:
            rows = report["reliability"]
            axes[1].plot([0, 1], [0, 1], color="0.7", linewidth=1)
            axes[1].plot(
                [row["confidence"] for row in rows],
                [row["accuracy"] for row in rows],
                marker="o",
                color=COLOURS[0],
                clip_on=False,
            )
            axes[1].set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), aspect="equal")
            axes[1].set_title(f"calibration error {report['ece']:.3f}")
        figure.suptitle(title, fontsize=9)
        return _png(figure)


def _png(figure) -> bytes:
    png = io.BytesIO()
    with missing_letters():
        figure.savefig(png, format="png", metadata={"Software": None})
    return png.getvalue()


def robustness_png(claims: Sequence[Claim], longest: float, title: str, asked: float = math.inf) -> bytes:
    """One panel per claim: certified accuracy (below), accuracy under attack (above) and the gap between them, up to
    the L2 length of the `longest` perturbation that was tried. Certified accuracy ends at `asked`, the largest of
    --radii, because no draws were taken to decide larger ones."""
    import matplotlib.style
    import numpy as np
    from matplotlib.figure import Figure

    radii = np.linspace(0, longest, 500)
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(4.2 * len(claims), 3.2), dpi=200, layout="constrained")
        for axis, claim in zip(figure.subplots(1, len(claims), squeeze=False)[0], claims, strict=True):
            below, above = (100 * of(claim, radii.tolist()) for of in (certified_accuracy_at, accuracy_under_attack))
            below[radii > asked] = math.nan
            axis.fill_between(radii, below, above, color="0.92", linewidth=0)
            axis.plot(radii, above, color=COLOURS[1], label="under attack (at most)")
            axis.plot(radii, below, color=COLOURS[0], label="certified (at least)")
            axis.set(title=claim.name, xlabel="L2 radius (pixel scale [0, 1])", xlim=(0, longest), ylim=(0, 102))
            axis.set_ylabel("Right answers (%)")
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
        figure.suptitle(title, fontsize=9)
        return _png(figure)
