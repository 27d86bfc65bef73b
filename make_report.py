"""Make one self-contained page, report.html, that shows what is proved of which image, and MODEL_CARD.md beside it.

    python make_report.py --add "classifier alone=runs/Phantom_MRI/certify/classifier_sigma_0.25.tsv" \\
        "+ stability denoiser=runs/Phantom_MRI/certify/stability_sigma_0.25.tsv" \\
        --empirical "classifier alone:clean=runs/Phantom_MRI/clean.json" --outdir runs/Phantom_MRI/report

--add and --empirical are those of make_tables.py, and the page has the same numbers. Whatever else exists can be added:
attacked certificates (--checks), attacked images (--attacks), training logs (--logs). Images, manifest and audit are
those of the certified data set in --data_dir; denoisers are where the settings beside the certificates say. What is
missing is left out, and the page says so.

The page opens from disk and loads nothing from anywhere. With --no_images it has neither pictures nor file names.
"""

from __future__ import annotations

from common.script import start

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from attacks.reported import attacked_set, images_of
from certification.pictures import Album, draw
from common import cli, files
from datasets import SPLITS, ImageDataset, Manifest
from evaluation.certificates import Certification, arrange, load
from evaluation.inputs import Report, add_table_flags, of_one_split, read_report
from evaluation.report.explorer import longest_radius
from evaluation.report.page import model_card, report_html
from evaluation.report.sources import (
    Sources,
    class_names,
    classes_seen,
    matched,
    must_be_one_data_set,
    read_audit,
    read_check,
    read_log,
)
from evaluation.report.story import default_radius


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    add_table_flags(parser)
    parser.add_argument(
        "--main", metavar="NAME", help="the pipeline that the report is about (default: the last that --add names)"
    )
    parser.add_argument(
        "--sigma", type=cli.positive_float, help="its sigma in the first sentences (default: the smallest)"
    )
    parser.add_argument(
        "--radius",
        type=cli.non_negative_float,
        metavar="R",
        help="the L2 radius of the first sentences (default: the smallest of --radii above 0 that was decided)",
    )
    parser.add_argument(
        "--checks",
        type=Path,
        nargs="+",
        default=[],
        metavar="TSV",
        help="tables of attacks/check_certificates.py on these certificates",
    )
    parser.add_argument(
        "--attacks", type=Path, nargs="+", default=[], metavar="DIR", help="folders of attacks/generate.py, AT_…"
    )
    parser.add_argument(
        "--logs",
        type=named_log,
        nargs="+",
        default=[],
        metavar="NAME=DIR",
        help="training runs: the folder, or the log.txt in it",
    )
    parser.add_argument(
        "--denoisers",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="denoisers that no longer lie where the settings beside the certificates say; their digest tells whose",
    )
    parser.add_argument("--data_dir", type=Path, default=Path("Dataset"), help="folder that prepare_data.py wrote to")
    parser.add_argument(
        "--images",
        type=cli.positive_int,
        default=400,
        metavar="N",
        help="images with all their pictures, those at the greatest risk first; the others have the clean one alone",
    )
    parser.add_argument(
        "--max_mb", type=cli.positive_float, default=10.0, metavar="MB", help="size of the page at most"
    )
    parser.add_argument("--no_images", action="store_true", help="neither pictures nor names of image files")
    parser.add_argument("--outdir", type=Path, required=True, metavar="DIR", help="folder for the page and the card")
    parser.add_common_flags()
    return parser


def named_log(text: str) -> tuple[str, Path]:
    """NAME=DIR; NAME ends at the first '='."""
    match = re.fullmatch(r"([^=]*\S[^=]*)=(.+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"must be NAME=DIR, got {text!r}")
    return match[1].strip(), Path(match[2])


def main(args: argparse.Namespace) -> None:
    if not args.add:
        raise ValueError("--add: is needed: a report is about certificates")

    # ---- read ----
    named = [load(name, path, sigma) for name, path, sigma in args.add]
    certifications = arrange(named)
    reports = [(name, images, read_report(path)) for name, images, path in args.empirical]
    must_be_one_data_set(certifications, reports)
    of_one_split([(each.path, each.settings) for each in certifications])
    about = chosen(args, certifications, named[-1].name)
    dataset, manifest, missing = images_of(about, args.data_dir, not args.no_images)
    sources = gather(args, certifications, reports, about, dataset, manifest, missing)

    # ---- pictures, as many as there is room for; then the page ----
    album = Album(int(args.max_mb * 1e6) - len(report_html(sources, {}).encode()))
    if album.is_full:
        raise ValueError(f"--max_mb {args.max_mb:g}: is too small for the page, even without pictures")
    notes = ["There are no pictures in this page."]
    if dataset is not None:
        notes, lacking = draw(sources, dataset, album, args.images, args.denoisers)
        sources.missing.extend(lacking)
    page, card = report_html(sources, album.pictures, notes), model_card(sources)
    for name, text in (("report.html", page), ("MODEL_CARD.md", card)):
        files.write_text(args.outdir / name, text)
    for line in sources.missing:
        print(f"make_report.py: warning: {line}", file=sys.stderr)
    print(f"report: {args.outdir / 'report.html'} ({len(page.encode()) / 1e6:.1f} MB), MODEL_CARD.md beside it")


def chosen(args: argparse.Namespace, certifications: Sequence[Certification], last: str) -> Certification:
    """The certification that the report is about. Raises ValueError if --main or --sigma names none."""
    name = args.main or last
    own = [each for each in certifications if each.name == name]
    if not own:
        raise ValueError(
            f"--main {name}: must be a name of --add: {', '.join({each.name: 0 for each in certifications})}"
        )
    found = [each for each in own if args.sigma in (None, each.sigma)]
    if not found:
        raise ValueError(f"--sigma {args.sigma:g}: {name} is certified at {', '.join(f'{e.sigma:g}' for e in own)}")
    return found[0]


def gather(
    args: argparse.Namespace,
    certifications: list[Certification],
    reports: list[Report],
    about: Certification,
    dataset: ImageDataset | None,
    manifest: Manifest | None,
    missing: list[str],
) -> Sources:
    """Everything that the page is made of. Raises ValueError if a file belongs to other certificates or images."""
    radii = sorted(set(args.radii))
    told = [list(report["per_class"]) for *_, report in reports]
    classes = class_names(classes_seen(certifications), *([manifest.info.classes] if manifest else []), *told)
    radius = default_radius(about, radii) if args.radius is None else args.radius
    if radius > min(about.asked, longest_radius(certifications)):
        raise ValueError(f"--radius {radius:g}: nothing was decided of {about.name} at that radius")
    attacks = [attacked_set(folder, about) for folder in args.attacks]
    rows = dataset.rows if dataset else []
    step = dataset.step if dataset else 1
    return Sources(
        certifications,
        about,
        radius,
        sorted({*radii, radius}),
        classes,
        reports,
        matched([read_check(path) for path in args.checks], certifications),
        attacks,
        [read_log(name, path) for name, path in args.logs],
        {i * step: {**row, "path": row.get("source", row["path"])} for i, row in enumerate(rows)},
        manifest.settings if manifest else {},
        manifest.rows if manifest and about.settings.get("split") in SPLITS else [],
        read_audit(args.data_dir / about.settings["dataset"] / "audit.csv") if manifest else [],
        missing,
        not args.no_images,
    )


if __name__ == "__main__":
    start(get_args_parser, main)
