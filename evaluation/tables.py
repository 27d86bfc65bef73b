"""Tables of certification results: CSV for machines, Markdown and LaTeX for people."""

from __future__ import annotations

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from tabulate import tabulate

from common.lines import shown, table_text
from evaluation.certificates import (
    DECIDED,
    Certification,
    abstention_rate,
    average_certified_radius,
    certified_accuracy,
    clopper_pearson,
    columns_of,
    grey_radius,
    group_certified_rate,
)

UNKNOWN = "–"
AT_LEAST = "≥ "
SYNTHETIC = "SYNTHETIC phantom data"
# The scope of every certified number.
SCOPE = (
    "Each radius holds for the smoothed classifier, with probability 1 − α per image, for images fixed before the seed "
    "was known, at the classifier's input size after resizing and rounding to 8 bits, for this pipeline on this kind "
    "of hardware."
)
LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "σ": r"$\sigma$", "α": r"$\alpha$", "≥": r"$\geq$"}
    | {"∞": r"$\infty$", "–": "--", "−": "$-$"}
)
MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\|*_`<&~"})


# ---- the numbers, one dict per line of the CSV -----------------------------------------------------------------------


def certified_accuracy_records(certifications: Sequence[Certification], radii: Sequence[float]) -> list[dict]:
    """Certified accuracy of each certification at each radius, with its 95% interval over the sample of images; None
    beyond the largest of --radii. Between them it `is_lower_bound`, and has no upper limit. `radius_grey` is the radius
    on grey images that are stored as RGB."""
    records = []
    for each in certifications:
        for radius in radii:
            accuracy = low = high = None
            if radius <= each.asked:
                accuracy = certified_accuracy(each.rows, radius)
                low, high = clopper_pearson(round(accuracy * len(each.rows)), len(each.rows))
            record = {"name": each.name, "sigma": each.sigma, "radius": radius, "certified_accuracy": accuracy}
            record |= {"low": low, "high": None if each.is_lower_bound(radius) else high}
            records.append(record | _marks(each, radius))
    return records


def clinical_records(certifications: Sequence[Certification], radii: Sequence[float]) -> list[dict]:
    """Certified sensitivity (disease stays disease) and specificity (healthy stays healthy) at each radius, each with
    its 95% interval, of the certifications whose TSV has groups. None, lower bounds and `radius_grey` as in
    `certified_accuracy_records`. `group_rule` says how disease or health is decided."""
    records = []
    for each in certifications:
        if "group_radius" not in columns_of(each.rows):
            continue
        for radius in radii:
            record = {"name": each.name, "sigma": each.sigma, "radius": radius}
            for rate, group in (("sensitivity", "disease"), ("specificity", "healthy")):
                certified, images = group_certified_rate(each.rows, group, radius)
                known = images > 0 and radius <= each.asked
                low, high = clopper_pearson(certified, images) if known else (None, None)
                record |= {
                    f"certified_{rate}": certified / images if known else None,
                    f"{rate}_low": low,
                    f"{rate}_high": None if each.is_lower_bound(radius) else high,
                    f"{group}_images": images,
                }
            records.append(record | _marks(each, radius) | {"group_rule": each.group_rule})
    return records


def _marks(each: Certification, radius: float) -> dict:
    grey = grey_radius(radius) if each.is_grey else None
    return {"is_lower_bound": each.is_lower_bound(radius), "radius_grey": grey}


def summary_records(certifications: Sequence[Certification]) -> list[dict]:
    """Number of images, ACR and abstention rate of each certification; its settings and mean draws if known."""
    return [
        {
            "name": each.name,
            "sigma": each.sigma,
            "images": len(each.rows),
            "acr": average_certified_radius(each.rows),
            "acr_is_bound": each.asked < math.inf,
            "abstain": abstention_rate(each.rows),
        }
        | {key: each.settings.get(key) for key in ("N0", "N", "alpha", "split")}
        | {"draws": float(each.rows["draws"].mean()) if "draws" in columns_of(each.rows) else None}
        for each in certifications
    ]


def empirical_records(reports: Sequence[tuple[str, str, dict]]) -> list[dict]:
    """Accuracy of each (pipeline, images, report of evaluate.py), with its 95% interval over the sample of images.
    `sigma` is that of the smoothing, None for a single pass."""
    records = []
    for name, images, report in reports:
        settings, (low, high) = report["settings"], report["accuracy_interval"]
        record = {"name": name, "sigma": settings["noise_sd"] if settings.get("N") else None, "on": images}
        record |= {"accuracy": report["accuracy"], "low": low, "high": high, "images": report["images"]}
        records.append(record | {"abstained": report.get("abstained", 0.0), "split": settings["split"]})
    return records


def to_csv(records: Sequence[dict]) -> str:
    """Records as CSV; floats keep every digit, unknown values stay empty."""
    return table_text(records)


# ---- the same laid out for people ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Cells as they are shown. The first two columns are name and sigma; `best` cells (row, column) are bold."""

    title: str
    header: list[str]
    cells: list[list[str]]
    best: set[tuple[int, int]] = field(default_factory=set)
    over: str = ""  # a common heading of all columns but the first two


def certified_accuracy_table(records: Sequence[dict]) -> Table:
    """One line per name and sigma, one column per radius, in percent, ≥ before lower bounds; the best of each sigma and
    radius is bold."""

    def cell(record: dict) -> str:
        return _percent(record["certified_accuracy"], record["is_lower_bound"])

    return _by_radius(records, "Certified accuracy (%) at L2 radius", cell)


def clinical_table(records: Sequence[dict]) -> Table:
    """As `certified_accuracy_table`, each cell "sensitivity / specificity"; nothing is bold. The heading says how
    disease or health is decided; if that differs between lines, each line says it."""

    def cell(record: dict) -> str:
        rates = (record["certified_sensitivity"], record["certified_specificity"])
        return " / ".join(_percent(rate, record["is_lower_bound"]) for rate in rates)

    rules, by = {record["group_rule"] for record in records}, ""
    if len(rules) == 1:
        by = f" {DECIDED[rules.pop()]},"
    else:
        records = [record | {"name": f"{record['name']} ({DECIDED[record['group_rule']]})"} for record in records]
    return _by_radius(records, f"Certified sensitivity / specificity (%){by} at L2 radius", cell, best=False)


def _percent(share: float | None, is_lower_bound: bool) -> str:
    return UNKNOWN if share is None else f"{AT_LEAST * is_lower_bound}{100 * share:.1f}"


def empirical_table(records: Sequence[dict]) -> Table:
    """One line per pipeline, one column per kind of images: accuracy in percent with its interval. If the numbers of
    images differ, the headings show them. Raises ValueError if two records belong to one cell."""
    over, columns = "Accuracy (%, 95% interval) on", list(dict.fromkeys(record["on"] for record in records))
    counts = {each: {str(record["images"]) for record in records if record["on"] == each} for each in columns}
    same = len(set().union(*counts.values())) == 1
    headings = [each if same else f"{each} [{', '.join(sorted(counts[each]))}]" for each in columns]
    lines: dict[tuple, dict[str, str]] = {}
    for record in records:
        rates = [f"{100 * record[key]:.1f}" for key in ("accuracy", "low", "high")]
        line = lines.setdefault((record["name"], record["sigma"]), {})
        if record["on"] in line:
            raise ValueError(f"--empirical {record['name']}:{record['on']}: is given twice")
        line[record["on"]] = "{} ({}–{})".format(*rates)
    cells = [
        [name, UNKNOWN if sigma is None else f"{sigma:g}", *(found.get(each, UNKNOWN) for each in columns)]
        for (name, sigma), found in lines.items()
    ]
    images = f"{records[0]['images']} images" if same else "numbers of images in brackets"
    title = f"Accuracy in % with its 95% interval (abstentions count as errors), {images}"
    return Table(title, ["Method", "σ", *headings], cells, over=over)


def _by_radius(records: Sequence[dict], over: str, cell: Callable[[dict], str], best: bool = True) -> Table:
    sigmas = _alike(record["sigma"] for record in records)
    lines: dict[tuple[str, float], list[str]] = {}
    for record in records:
        line = lines.setdefault((record["name"], record["sigma"]), [record["name"], sigmas[record["sigma"]]])
        line.append(cell(record))
    cells = list(lines.values())
    header = ["Method", "σ", *_alike(record["radius"] for record in records).values()]
    standing_out = _best(cells, range(2, len(header))) if best else set()
    return Table(f"{over} (abstentions count as errors)", header, cells, standing_out, over)


def summary_table(records: Sequence[dict]) -> Table:
    """One line per name and sigma; the best ACR of each sigma is bold. Settings that no file has are left out. If draws
    stop when certain radii are decided, the ACR is a lower bound, ≥."""
    sigmas = _alike(record["sigma"] for record in records)
    columns: dict[str, Callable[[dict], str]] = {
        "Method": lambda record: record["name"],
        "σ": lambda record: sigmas[record["sigma"]],
        "ACR": lambda record: f"{AT_LEAST * record['acr_is_bound']}{record['acr']:.3f}",
        "Abstain (%)": lambda record: f"{100 * record['abstain']:.1f}",
        "Images": lambda record: str(record["images"]),
    }
    for heading, key in {"N0": "N0", "N": "N", "α": "alpha", "Split": "split"}.items():
        if any(record[key] is not None for record in records):
            columns[heading] = functools.partial(_setting, key)
    if any(record["draws"] is not None for record in records):
        columns["Draws per image"] = lambda record: UNKNOWN if record["draws"] is None else f"{record['draws']:.0f}"
    cells = [[show(record) for show in columns.values()] for record in records]
    title = "Average certified radius (ACR), share of abstentions, number of images and settings"
    return Table(title, list(columns), cells, _best(cells, [list(columns).index("ACR")]))


def _setting(key: str, record: dict) -> str:
    return UNKNOWN if record[key] is None else str(record[key])


def _alike(values: Iterable[float]) -> dict[float, str]:
    """Each value as text, all with as many decimals as the longest needs: 0.25, 0.50, 1.00."""
    values = list(values)
    decimals = max(_decimals(value) for value in values)
    return {value: f"{value:.{decimals}f}" for value in values}


def _decimals(value: float) -> int:
    exponent = Decimal(f"{value:g}").as_tuple().exponent
    return -min(0, exponent) if isinstance(exponent, int) else 0


def _best(cells: Sequence[Sequence[str]], columns: Sequence[int]) -> set[tuple[int, int]]:
    """The cells with the highest number of their column among the lines of the same sigma.

    Numbers are compared as they are shown, so two that look equal are both marked. Nothing is marked if there is only
    one line or if all numbers are 0. Lower bounds are compared by their value. If the highest number is not a lower
    bound but another one is, the true value of that one may be higher, so nothing is marked.
    """
    best = set()
    for sigma in {line[1] for line in cells}:
        rows = [row for row, line in enumerate(cells) if line[1] == sigma]
        for column in columns:
            best |= {(row, column) for row in _leading({row: cells[row][column] for row in rows})}
    return best


def _leading(column: dict[int, str]) -> set[int]:
    """The rows of a column (row → cell) that `_best` marks."""
    values = {row: _number(cell) for row, cell in column.items()}
    bounds = {row for row, cell in column.items() if cell.startswith(AT_LEAST)}
    top = max(values.values())
    leading = {row for row, value in values.items() if value == top}
    return leading if len(column) > 1 and top > 0 and (not bounds or leading <= bounds) else set()


def _number(cell: str) -> float:
    return 0.0 if cell == UNKNOWN else float(cell.removeprefix(AT_LEAST))


def certified_notes(certifications: Sequence[Certification], radii: Sequence[float]) -> list[str]:
    """The notes below every table of these certifications at these `radii`: the meaning of ≥, the radii on grey images,
    and the scope of all numbers."""
    notes = []
    if any(each.is_lower_bound(radius) for each in certifications for radius in radii):
        notes.append("≥: the draws were not asked to decide this radius; more images may be certified there.")
    grey = [each for each in certifications if each.is_grey]
    positive = [radius for radius in radii if radius > 0]
    if grey and positive:
        # In thousandths, rounded down as all radii are.
        on_grey = [f"{radius:g} is {math.floor(grey_radius(radius) * 1000) / 1000:.3f}" for radius in positive]
        names = ", ".join(dict.fromkeys(each.name for each in grey))
        whose = "" if len(grey) == len(certifications) else f" ({names})"
        notes.append(f"Grey images stored as RGB{whose}: r = {', '.join(on_grey)} on the grey image.")
    return [*notes, SCOPE]


def certified_text(certifications: Sequence[Certification], radii: Sequence[float]) -> str:
    """Certified accuracy and, if the TSVs have groups, certified sensitivity and specificity, for the screen."""
    tables = [certified_accuracy_table(certified_accuracy_records(certifications, radii))]
    clinical = clinical_records(certifications, radii)
    tables += [clinical_table(clinical)] if clinical else []
    notes = [SYNTHETIC] if any(each.is_phantom for each in certifications) else []
    notes += certified_notes(certifications, radii)
    return "\n".join([*map(to_markdown, tables), *(f"{_in_markdown(note)}\n" for note in notes)])


def to_markdown(table: Table, notes: Sequence[str] = ()) -> str:
    """Title, table and, below it, the notes."""
    header, cells = _render(table, _in_markdown, "**{}**".format)
    align = ["left"] + ["right"] * (len(header) - 1)
    grid = tabulate(cells, header, tablefmt="pipe", disable_numparse=True, colalign=align)
    return "\n\n".join([f"{table.title}:", grid, *map(_in_markdown, notes)]) + "\n"


def to_latex(table: Table, notes: Sequence[str] = ()) -> str:
    r"""A booktabs `tabular`, a rule between sigmas, the notes in its last lines, each no wider than the table; for
    \input into a table environment."""
    header, cells = _render(table, _in_latex, r"\textbf{{{}}}".format)
    width = len(header)
    lines = [f"% {table.title}. Needs \\usepackage{{booktabs}}.", rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}"]
    lines.append(r"\toprule")
    if table.over:
        lines.append(rf"& & \multicolumn{{{width - 2}}}{{c}}{{{table.over.translate(LATEX)}}} \\")
        lines.append(rf"\cmidrule(l){{3-{width}}}")
    lines += [" & ".join(header) + r" \\", r"\midrule"]
    for row, line in enumerate(cells):
        if row > 0 and table.cells[row][1] != table.cells[row - 1][1]:
            lines.append(r"\midrule")
        lines.append(" & ".join(line) + r" \\")
    lines.append(r"\bottomrule")
    letters = sum(max(map(len, column)) + 2 for column in zip(table.header, *table.cells, strict=True))
    for note in notes:
        lines += [
            rf"\multicolumn{{{width}}}{{l}}{{\footnotesize {_in_latex(part)}}} \\"
            for part in textwrap.wrap(note, max(60, letters))
        ]
    return "\n".join([*lines, r"\end{tabular}"]) + "\n"


def _in_markdown(cell: str) -> str:
    """Text as Markdown shows it; a bracket before a parenthesis would be a link."""
    return shown(cell).translate(MARKDOWN).replace("](", "]\\(")


def _in_latex(cell: str) -> str:
    r"""Text as LaTeX shows it; after \\ and \midrule a bracket or a star at its beginning would be an argument."""
    text = shown(cell).translate(LATEX)
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def _render(
    table: Table, escape: Callable[[str], str], bold: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """Header and cells as text of a markup language."""
    cells = [
        [bold(escape(cell)) if (row, column) in table.best else escape(cell) for column, cell in enumerate(line)]
        for row, line in enumerate(table.cells)
    ]
    return [escape(heading) for heading in table.header], cells
