"""Turn certification TSVs into tables (CSV, Markdown, LaTeX) and a figure of certified accuracy against radius.

Example:
    python make_tables.py --add "no denoiser=runs/none/sigma_0.25.tsv" "AE-DS (ZO)=runs/zo/sigma_0.25.tsv" \\
        --radii 0 0.25 0.5 0.75 --outdir results/tables
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import cli
import files
from evaluation.certificates import arrange, caveats, load
from evaluation.figures import certified_accuracy_png
from evaluation.tables import (
    certified_accuracy_records,
    certified_accuracy_table,
    clinical_records,
    clinical_table,
    summary_records,
    summary_table,
    to_csv,
    to_latex,
    to_markdown,
)


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--add",
        type=named_file,
        nargs="+",
        action="extend",
        required=True,
        metavar="NAME=FILE",
        help="certification TSVs to compare, ours or published logs; may be repeated, and NAME too, once per sigma. "
        "Sigma is read from FILE.json or the path (sigma_0.25); where neither says it: NAME=FILE@0.25",
    )
    parser.add_argument(
        "--radii",
        type=cli.non_negative_float,
        nargs="+",
        default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5],
        metavar="R",
        help="L2 radii of the table's columns, on the pixel scale [0, 1]",
    )
    parser.add_argument("--outdir", type=Path, required=True, metavar="DIR", help="folder to write into")
    parser.add_common_flags()
    return parser


def named_file(text: str) -> tuple[str, Path, float | None]:
    """NAME=FILE or NAME=FILE@SIGMA; NAME ends at the first '='."""
    match = re.fullmatch(r"(?P<name>[^=]*\S[^=]*)=(?P<file>.+?)(?:@(?P<sigma>[-+.\de]+))?", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be NAME=FILE or NAME=FILE@SIGMA, got {text!r}")
    sigma = match["sigma"]
    return match["name"].strip(), Path(match["file"]), None if sigma is None else cli.positive_float(sigma)


def main(args: argparse.Namespace) -> None:
    # ---- read ----
    certifications = arrange([load(name, path, sigma) for name, path, sigma in args.add])
    for line in caveats(certifications):
        print(f"make_tables.py: warning: {line}", file=sys.stderr)
    note = "SYNTHETIC phantom data" if any(each.is_phantom for each in certifications) else ""

    # ---- compute and lay out: all of it, before anything is written ----
    radii = sorted(set(args.radii))
    accuracy, clinical = certified_accuracy_records(certifications, radii), clinical_records(certifications, radii)
    summary = summary_records(certifications)
    accuracy_table, short_table = certified_accuracy_table(accuracy), summary_table(summary)
    outputs = {
        "certified_accuracy.csv": to_csv(accuracy),
        "certified_accuracy.md": to_markdown(accuracy_table, note),
        "certified_accuracy.tex": to_latex(accuracy_table, note),
        "certified_accuracy.png": certified_accuracy_png(certifications, note),
        "summary.csv": to_csv(summary),
        "summary.md": to_markdown(short_table, note),
        "summary.tex": to_latex(short_table, note),
    }
    if clinical:
        table = clinical_table(clinical)
        outputs |= {
            "certified_sensitivity.csv": to_csv(clinical),
            "certified_sensitivity.md": to_markdown(table, note),
            "certified_sensitivity.tex": to_latex(table, note),
        }

    # ---- write ----
    for name, content in outputs.items():
        with files.replacing(args.outdir / name) as partial:
            partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    print("\n".join(outputs[name] for name in outputs if name.endswith(".md")))
    for name in outputs:
        print(f"wrote {args.outdir / name}")


if __name__ == "__main__":
    cli.run(get_args_parser, main)
