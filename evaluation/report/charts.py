"""Curves as SVG paths: the geometry of a panel, from the numbers of `certificates` and `robustness`. The template
(`page.html`) draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.certificates import Certification, accuracy_curve, by_sigma, group_certified_rate
from evaluation.robustness import Claim, accuracy_under_attack, certified_accuracy_at

# A panel in units of the picture: its width and height, and the frame that curves are drawn in.
WIDTH, HEIGHT = 340, 230
LEFT, RIGHT, TOP, BOTTOM = 34, 332, 10, 196


@dataclass(frozen=True)
class Line:
    """A curve: its name, the number of its look (colour and dashes), its path."""

    name: str
    look: int
    path: str


@dataclass(frozen=True)
class Panel:
    """A panel: `bands` are the outlines of shaded areas, ticks are (place, text)."""

    title: str
    alt: str
    lines: list[Line]
    bands: list[str]
    xticks: list[tuple[float, str]]
    yticks: list[tuple[float, str]]
    mark: float | None  # where the radius of the report is


def nice_step(longest: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that divides `longest` into at most `most` parts."""
    if longest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(longest / most))
    return next(round(step * power, 9) for step in (1, 2, 5, 10, 20) if longest <= most * step * power * (1 + 1e-9))


def ticks(longest: float, most: int = 6) -> list[float]:
    """Round numbers from 0 to `longest`."""
    step = nice_step(longest, most)
    return [round(k * step, 9) for k in range(math.floor(longest / step + 1e-9) + 1)]


class Frame:
    """The frame of a panel, from 0 to `longest` and from 0 to 100%."""

    def __init__(self, longest: float) -> None:
        self.longest = longest or 1.0

    def x(self, radius: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * radius / self.longest, 1)

    def y(self, share: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * share, 1)

    def steps(self, radii: np.ndarray, shares: np.ndarray) -> str:
        """The path of a left-continuous step function with these corners. Corners that fall on one point of the
        picture are drawn once."""
        path, last = [f"M{self.x(radii[0])} {self.y(shares[0])}"], (self.x(radii[0]), self.y(shares[0]))
        for radius, share in zip(radii[1:], shares[1:], strict=True):
            x, y = self.x(radius), self.y(share)
            path += [f"V{y}"] if y != last[1] else []
            path += [f"H{x}"] if x != last[0] else []
            last = x, y
        return "".join(path)

    def between(self, radii: np.ndarray, below: np.ndarray, above: np.ndarray) -> str:
        """The outline of what lies between two curves."""
        up = self.steps(radii, above)
        back = " ".join(f"L{self.x(r)} {self.y(s)}" for r, s in zip(radii[::-1], below[::-1], strict=True))
        return f"{up} {back}Z"

    def panel(
        self, title: str, alt: str, lines: list[Line], bands: list[str] | None = None, mark: float | None = None
    ) -> Panel:
        shown = self.x(mark) if mark is not None and mark <= self.longest else None
        xticks = [(self.x(each), f"{each:g}") for each in ticks(self.longest)]
        yticks = [(self.y(each / 100), str(each)) for each in (0, 25, 50, 75, 100)]
        return Panel(title, alt, lines, bands or [], xticks, yticks, shown)


def certified_panels(certifications: Sequence[Certification], radius: float) -> list[Panel]:
    """Certified accuracy against radius: a panel for each sigma, a curve for each name."""
    names = list(dict.fromkeys(each.name for each in certifications))
    panels = []
    for sigma, group in by_sigma(certifications).items():
        curves = [(each.name, *accuracy_curve(each.rows, each.asked)) for each in group]
        frame = Frame(max(float(r[-1]) for _, r, _ in curves))
        lines = [Line(name, names.index(name), frame.steps(r, share)) for name, r, share in curves]
        alt = f"Certified accuracy against radius at sigma {sigma:g}; the numbers are in the table below"
        panels.append(frame.panel(f"σ = {sigma:g}", alt, lines, mark=radius))
    return panels


def clinical_panels(certifications: Sequence[Certification], radius: float) -> list[Panel]:
    """Certified sensitivity (look 0) and specificity (look 1) against radius: a panel for each certification."""
    panels = []
    for each in certifications:
        ends = each.rows["group_radius"]
        frame = Frame(min(each.asked, float(ends.max())))
        grid = np.unique(np.append(ends[ends <= frame.longest], [0.0, frame.longest]))
        grid = grid if len(grid) <= 600 else np.linspace(0, frame.longest, 600)
        lines = []
        for look, group in enumerate(("disease", "healthy")):
            rates = [group_certified_rate(each.rows, group, r) for r in grid]
            if rates[0][1]:
                shares = np.array([certified / images for certified, images in rates])
                name = "sensitivity" if group == "disease" else "specificity"
                lines.append(Line(name, look, frame.steps(grid, shares)))
        alt = f"Certified sensitivity and specificity against radius, {each.name}; the numbers are in the table below"
        panels.append(frame.panel(f"{each.name}, σ = {each.sigma:g}", alt, lines, mark=radius))
    return panels


def attack_panels(found: Sequence[tuple[Certification, Claim]], radius: float) -> list[Panel]:
    """Certified accuracy (look 0) below, accuracy under attack (look 1) above, and the gap between them."""
    panels = []
    for each, claim in found:
        broken = claim.broken_at[np.isfinite(claim.broken_at)]
        longest = float(max([*broken, *claim.radius]))
        frame = Frame(1.1 * longest)
        radii = np.linspace(0, frame.longest, 300)
        below, above = certified_accuracy_at(claim, radii.tolist()), accuracy_under_attack(claim, radii.tolist())
        known = radii <= each.asked
        lines = [
            Line("certified: at least", 0, frame.steps(radii[known], below[known])),
            Line("under attack: at most", 1, frame.steps(radii, above)),
        ]
        alt = f"Accuracy of {each.name} between what is certified and what attacks left, against the L2 radius"
        title = f"{each.name}, σ = {each.sigma:g}"
        panels.append(
            frame.panel(title, alt, lines, [frame.between(radii[known], below[known], above[known])], mark=radius)
        )
    return panels
