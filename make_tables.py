"""Write tables of certified accuracy (CSV, Markdown, LaTeX) and its figure from certification TSVs.

    python make_tables.py --add "no denoiser=runs/none/sigma_0.25.tsv" "AE-DS (ZO)=runs/zo/sigma_0.25.tsv" \\
        --radii 0 0.25 0.5 0.75 --outdir results/tables

With --empirical it writes a table of empirical accuracy from reports of evaluate.py: one line per pipeline, one column
per kind of images.

    python make_tables.py --empirical "DS:clean=runs/clean.json" "DS:PGD=runs/pgd.json" --outdir results/tables
"""

from __future__ import annotations

from common.script import start

import argparse
import sys
from pathlib import Path

from common import cli, files
from common.lines import shown
from evaluation.certificates import Certification, arrange, caveats, load
from evaluation.figures import certified_accuracy_png
from evaluation.inputs import add_table_flags, is_synthetic, of_one_split, read_report, uneven_columns
from evaluation.tables import (
    SYNTHETIC,
    Table,
    certified_accuracy_records,
    certified_accuracy_table,
    certified_notes,
    clinical_records,
    clinical_table,
    empirical_records,
    empirical_table,
    summary_records,
    summary_table,
    to_csv,
    to_latex,
    to_markdown,
)


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    add_table_flags(parser)
    parser.add_argument("--outdir", type=Path, required=True, metavar="DIR", help="folder for the tables and figures")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    if not (args.add or args.empirical):
        raise ValueError("give certification TSVs with --add or reports of evaluate.py with --empirical")

    # ---- read ----
    certifications = arrange([load(name, path, sigma) for name, path, sigma in args.add])
    reports = [(name, images, read_report(path)) for name, images, path in args.empirical]
    sources = [(each.path, each.settings) for each in certifications]
    sources += [(path, report["settings"]) for (*_, path), (*_, report) in zip(args.empirical, reports, strict=True)]
    of_one_split(sources)
    for line in [*caveats(certifications, args.radii), *uneven_columns(reports)]:
        print(f"make_tables.py: warning: {shown(line)}", file=sys.stderr)
    note = SYNTHETIC if is_synthetic(certifications, reports) else ""

    # ---- compute everything before anything is written ----
    outputs: dict[str, str | bytes] = {}
    if certifications:
        outputs |= certified_outputs(certifications, sorted(set(args.radii)), note)
    if reports:
        records = empirical_records(reports)
        outputs |= laid_out("empirical_accuracy", records, empirical_table(records), [note] if note else [])
    write(outputs, args.outdir)


def write(outputs: dict[str, str | bytes], outdir: Path) -> None:
    """Write these files (name → content) into a folder, and print the Markdown tables."""
    for name, content in outputs.items():
        with files.replacing(outdir / name) as partial:
            partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    print("\n".join(text for name, text in outputs.items() if name.endswith(".md") and isinstance(text, str)))
    for name in outputs:
        print(f"wrote {outdir / name}")


def certified_outputs(certifications: list[Certification], radii: list[float], note: str) -> dict[str, str | bytes]:
    """File name → content, for the tables and the figure of certificates."""
    accuracy, clinical = certified_accuracy_records(certifications, radii), clinical_records(certifications, radii)
    summary = summary_records(certifications)
    synthetic = [note] if note else []
    notes = [*synthetic, *certified_notes(certifications, radii)]
    outputs: dict[str, str | bytes] = laid_out(
        "certified_accuracy", accuracy, certified_accuracy_table(accuracy), notes
    )
    outputs |= {"certified_accuracy.png": certified_accuracy_png(certifications, note)}
    outputs |= laid_out("summary", summary, summary_table(summary), [*synthetic, *certified_notes(certifications, [])])
    if clinical:
        outputs |= laid_out("certified_sensitivity", clinical, clinical_table(clinical), notes)
    return outputs


def laid_out(name: str, records: list[dict], table: Table, notes: list[str]) -> dict[str, str | bytes]:
    """The three files of a table: CSV with all digits, Markdown and LaTeX with rounded ones."""
    return {
        f"{name}.csv": to_csv(records),
        f"{name}.md": to_markdown(table, notes),
        f"{name}.tex": to_latex(table, notes),
    }


if __name__ == "__main__":
    start(get_args_parser, main)
