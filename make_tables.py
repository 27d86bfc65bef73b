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
import re
import sys
from pathlib import Path

from common import cli, files
from common.lines import shown
from evaluation.certificates import Certification, arrange, caveats, load
from evaluation.figures import certified_accuracy_png
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
    parser.add_argument(
        "--add",
        type=named_file,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=FILE",
        help="certification TSVs to compare, ours or published logs. The flag can be repeated; one NAME can have one "
        "file per sigma. Sigma is read from FILE.json or from the path (sigma_0.25); if neither holds it, write "
        "NAME=FILE@0.25",
    )
    parser.add_argument(
        "--empirical",
        type=named_report,
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME:IMAGES=FILE",
        help="reports of evaluate.py (JSON) to compare; IMAGES names the column, e.g. clean or PGD",
    )
    parser.add_argument(
        "--radii",
        type=cli.non_negative_float,
        nargs="+",
        default=[0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5],
        metavar="R",
        help="L2 radii, one column each, on the pixel scale [0, 1]",
    )
    parser.add_argument("--outdir", type=Path, required=True, metavar="DIR", help="folder for the tables and figures")
    parser.add_common_flags()
    return parser


def named_file(text: str) -> tuple[str, Path, float | None]:
    """NAME=FILE or NAME=FILE@SIGMA; NAME ends at the first '='. A file that is called FILE@SIGMA is one."""
    match = re.fullmatch(r"(?P<name>[^=]*[^=\s][^=]*)=(?P<file>.+?)(?:@(?P<sigma>[-+.\de]+))?", text, re.DOTALL)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be NAME=FILE or NAME=FILE@SIGMA, got {text!r}")
    file, sigma = match["file"], match["sigma"]
    if sigma is None or is_file(f"{file}@{sigma}"):
        return match["name"].strip(), Path(text.partition("=")[2]), None
    return match["name"].strip(), Path(file), cli.positive_float(sigma)


def is_file(name: str) -> bool:
    """Whether there is a file of this name, which may be too long for one."""
    try:
        return Path(name).is_file()
    except OSError:
        return False


def named_report(text: str) -> tuple[str, str, Path]:
    """NAME:IMAGES=FILE; NAME ends at the last ':' before the first '='."""
    match = re.fullmatch(r"(?P<name>[^=]*[^=\s][^=]*):(?P<images>[^=:]*[^=:\s][^=:]*)=(?P<file>.+)", text, re.DOTALL)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be NAME:IMAGES=FILE, got {text!r}")
    return match["name"].strip(), match["images"].strip(), Path(match["file"])


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


def is_synthetic(certifications: list[Certification], reports: list[tuple[str, str, dict]]) -> bool:
    """Whether any of the images are phantoms."""
    return any(each.is_phantom for each in certifications) or any(
        report["settings"].get("synthetic") for *_, report in reports
    )


def uneven_columns(reports: list[tuple[str, str, dict]]) -> list[str]:
    """A line for each column whose reports (pipeline, column, report) have different numbers of images."""
    counts: dict[str, set[int]] = {}
    for _, column, report in reports:
        counts.setdefault(column, set()).add(report["images"])
    return [
        f"{column}: reports of different numbers of images ({sorted(found)})"
        for column, found in counts.items()
        if len(found) > 1
    ]


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


def of_one_split(made: list[tuple[Path, dict]]) -> None:
    """Raises ValueError if two files with these settings belong to different splits of one data set. A test image of
    one may be a training image of the other."""
    first: dict[tuple[str, str | None], tuple[Path, str]] = {}
    for path, settings in made:
        dataset, manifest, split = (settings.get(key) for key in ("dataset", "manifest", "split"))
        if dataset is None or manifest is None:
            continue
        attacked = None if split in ("train", "val", "test") else split  # these have a manifest of their own
        other, expected = first.setdefault((dataset, attacked), (path, manifest))
        if manifest != expected:
            raise ValueError(
                f"{path}: uses another split of {dataset} than {other}; a table can only compare files of one split"
            )


def read_report(path: Path) -> dict:
    """Read a report of evaluate.py. Raises ValueError if the file is something else."""
    report = files.read_json(path)
    needed = {"settings", "accuracy", "accuracy_interval", "images"} <= set(report)
    if not (needed and {"split", "noise_sd"} <= set(report["settings"])):
        raise ValueError(f"{path}: is no report of evaluate.py")
    return report


if __name__ == "__main__":
    start(get_args_parser, main)
