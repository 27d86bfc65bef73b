"""What make_tables.py and make_report.py are given: certification TSVs and reports of evaluate.py, each with a name."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from common import cli, files
from evaluation.certificates import Certification

RADII = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
Report = tuple[str, str, dict]  # pipeline, images, the report of evaluate.py


def add_table_flags(parser: cli.Parser) -> None:
    """Add --add, --empirical and --radii."""
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
        default=RADII,
        metavar="R",
        help="L2 radii, one column each, on the pixel scale [0, 1]",
    )


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
