"""Turn certification TSVs into tables (CSV, Markdown, LaTeX) and a figure of certified accuracy against radius.

Reports of evaluate.py become a table of empirical accuracy, a line per pipeline and a column per kind of images.

Examples:
    python make_tables.py --add "no denoiser=runs/none/sigma_0.25.tsv" "AE-DS (ZO)=runs/zo/sigma_0.25.tsv" \\
        --radii 0 0.25 0.5 0.75 --outdir results/tables
    python make_tables.py --empirical "DS:clean=runs/clean.json" "DS:PGD=runs/pgd.json" --outdir results/tables
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from common import cli, files
from evaluation.certificates import Certification, arrange, caveats, load
from evaluation.figures import certified_accuracy_png
from evaluation.tables import (
    Table,
    certified_accuracy_records,
    certified_accuracy_table,
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
    parser = cli.Parser(__doc__, goes_on=False)
    parser.add_argument(
        "--add",
        type=named_file,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="certification TSVs to compare, ours or published logs; may be repeated, and NAME too, once per sigma. "
        "Sigma is read from FILE.json or the path (sigma_0.25); where neither says it: NAME=FILE@0.25",
    )
    parser.add_argument(
        "--empirical",
        type=named_report,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME:IMAGES=FILE",
        help="reports of evaluate.py (JSON) to lay side by side",
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


def named_report(text: str) -> tuple[str, str, Path]:
    """NAME:IMAGES=FILE; NAME ends at the last ':' before the first '='."""
    match = re.fullmatch(r"(?P<name>[^=]*\S[^=]*):(?P<images>[^=:]*\S[^=:]*)=(?P<file>.+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be NAME:IMAGES=FILE, got {text!r}")
    return match["name"].strip(), match["images"].strip(), Path(match["file"])


def main(args: argparse.Namespace) -> None:
    # ---- read ----
    if not (args.add or args.empirical):
        raise ValueError("give certification TSVs with --add or reports of evaluate.py with --empirical")
    certifications = arrange([load(name, path, sigma) for name, path, sigma in args.add])
    reports = [(name, images, read_report(path)) for name, images, path in args.empirical]
    of_reports = [(path, report["settings"]) for (*_, path), (*_, report) in zip(args.empirical, reports, strict=True)]
    of_one_split([(each.path, each.settings) for each in certifications] + of_reports)
    for line in caveats(certifications, args.radii):
        print(f"make_tables.py: warning: {line}", file=sys.stderr)
    for column in dict.fromkeys(images for _, images, _ in reports):
        counts = sorted({report["images"] for _, images, report in reports if images == column})
        if len(counts) > 1:
            line = f"{column}: reports of different numbers of images ({counts})"
            print(f"make_tables.py: warning: {line}", file=sys.stderr)
    synthetic = any(each.is_phantom for each in certifications) or any(
        report["settings"].get("synthetic") for *_, report in reports
    )
    note = "SYNTHETIC phantom data" if synthetic else ""

    # ---- compute and lay out: all of it, before anything is written ----
    outputs: dict[str, str | bytes] = {}
    if certifications:
        outputs |= certified_outputs(certifications, sorted(set(args.radii)), note)
    if reports:
        records = empirical_records(reports)
        outputs |= laid_out("empirical_accuracy", records, empirical_table(records), note)

    # ---- write ----
    for name, content in outputs.items():
        with files.replacing(args.outdir / name) as partial:
            partial.write_bytes(content if isinstance(content, bytes) else content.encode())
    print("\n".join(outputs[name] for name in outputs if name.endswith(".md")))
    for name in outputs:
        print(f"wrote {args.outdir / name}")


def certified_outputs(certifications: list[Certification], radii: list[float], note: str) -> dict[str, str | bytes]:
    """File name → content, for everything that certificates tell."""
    accuracy, clinical = certified_accuracy_records(certifications, radii), clinical_records(certifications, radii)
    summary = summary_records(certifications)
    outputs: dict[str, str | bytes] = laid_out("certified_accuracy", accuracy, certified_accuracy_table(accuracy), note)
    outputs |= {"certified_accuracy.png": certified_accuracy_png(certifications, note)}
    outputs |= laid_out("summary", summary, summary_table(summary), note)
    if clinical:
        outputs |= laid_out("certified_sensitivity", clinical, clinical_table(clinical), note)
    return outputs


def laid_out(name: str, records: list[dict], table: Table, note: str) -> dict[str, str | bytes]:
    """A table's three files: all digits for machines, the same for people."""
    return {
        f"{name}.csv": to_csv(records),
        f"{name}.md": to_markdown(table, note),
        f"{name}.tex": to_latex(table, note),
    }


def of_one_split(made: list[tuple[Path, dict]]) -> None:
    """Raises ValueError if two files with these settings are of different splits of one data set: what is a test image
    to one, a model of the other may have been trained on."""
    first: dict[str, tuple[Path, str]] = {}
    for path, settings in made:
        dataset, manifest = settings.get("dataset"), settings.get("manifest")
        if dataset is None or manifest is None:
            continue
        split = settings.get("split")
        of = (
            dataset,
            None if split in ("train", "val", "test") else split,
        )  # attacked images have a manifest of their own
        other, expected = first.setdefault(of, (path, manifest))
        if manifest != expected:
            raise ValueError(f"{path}: is of another split of {dataset} than {other}; a table is of one")


def read_report(path: Path) -> dict:
    """What evaluate.py wrote. Raises ValueError if it is something else."""
    report = files.read_json(path)
    needed = {"settings", "accuracy", "accuracy_interval", "images"} <= set(report)
    if not (needed and {"split", "noise_sd"} <= set(report["settings"])):
        raise ValueError(f"{path}: is no report of evaluate.py")
    return report


if __name__ == "__main__":
    cli.run(get_args_parser, main)
