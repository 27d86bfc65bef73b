"""Find, download or generate a data set, check it, split it, write its manifest.

    python prepare_data.py --dataset Phantom_MRI
    python prepare_data.py --dataset Brain_Tumor --source ~/Downloads/archive --protocol stratified

and your own images, a folder for each class, or a table path,label[,group][,split]:

    python prepare_data.py --dataset My_Scans --source my_scans/ --group_by '(patient\\d+)' --disease tumour

Every run audits first: unreadable files, duplicates, labels that contradict each other, groups across splits,
shortcuts. --audit does nothing else; --strict ends with exit code 1 if the data is not fit for use.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path

import cli
import files
from catalogue import DATASETS, DatasetInfo, dataset_name
from datasets import MANIFEST_COLUMNS, PROTOCOLS, SPLITS
from images import FITS
from preparation.audit import as_text, audit, count_images, draw_duplicates, write_findings
from preparation.duplicates import duplicate_counts, group_names, near_duplicates
from preparation.scan import Record, mean_and_std, read_images
from preparation.sources import find_images, find_subjects, relabel
from preparation.splits import FOLDS, assign_splits


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", default="Phantom_MRI",
                      help=f"{', '.join(DATASETS)}, or any name for your own images")  # fmt: skip
    data.add_argument("--source", type=Path, help="folder (or CSV file) of images; of CIFAR10 and MNIST, torchvision's")
    data.add_argument("--download", action="store_true", help="fetch it from Kaggle (needs kagglehub) or torchvision")
    data.add_argument("--data_dir", type=Path, default=Path("Dataset"), help="where <dataset>/manifest.csv goes")
    data.add_argument("--label_scheme", help="other classes made of these; SIPADMEK: three (abnormal, benign, normal)")
    data.add_argument("--disease", nargs="+", metavar="CLASS", help="your own images: classes not to be missed")
    data.add_argument(
        "--group_by", metavar="REGEX", help="finds in a path whose image it is: groups never cross splits"
    )
    data.add_argument("--near", type=cli.probability, metavar="R",
                      help="correlation from which two images are the same picture (default: 0.98)")  # fmt: skip
    data.add_argument("--skip_unreadable", action="store_true", help="set unreadable images aside instead of stopping")
    split = parser.add_argument_group("split")
    split.add_argument("--protocol", choices=PROTOCOLS, default="stratified",
                       help="official: the published split; stratified: pooled, 70/10/20")  # fmt: skip
    split.add_argument("--fold", type=cli.shard, default=(0, FOLDS), metavar="I/K",
                       help="stratified: the part for testing (default: 0/5)")  # fmt: skip
    split.add_argument("--leaky", action="store_true",
                       help="stratified: deal single images, as others do: only to show what that does")  # fmt: skip
    form = parser.add_argument_group("form")
    form.add_argument("--fit", choices=FITS, default="resize", help="stretch to a square, or keep the proportions")
    form.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="grey levels of DICOM and NIfTI")
    form.add_argument("--slices", type=cli.positive_int, default=1, help="of each NIfTI volume, from its middle half")
    form.add_argument("--subjects", type=cli.positive_int, default=200, help="phantoms: subjects, or cell clusters")
    form.add_argument("--phantom_size", type=cli.positive_int, default=96, help="phantoms: side in pixels")
    checks = parser.add_argument_group("audit")
    checks.add_argument("--audit", action="store_true", help="only audit; leave the manifest as it is")
    checks.add_argument("--strict", action="store_true", help="fail if the audit finds an error")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    name = dataset_name(args.dataset)
    known = DATASETS.get(name)
    target = args.data_dir / name

    # ---- the images, and what they are ----
    source = find_source(args, known, name, target)
    records, classes = find_images(source, known, args.slices)
    info = describe(args, known, name, classes)
    if args.label_scheme:
        if args.label_scheme not in info.schemes:
            raise ValueError(f"--label_scheme {args.label_scheme}: {name} has {', '.join(info.schemes) or 'none'}")
        classes, disease = relabel(records, info.schemes[args.label_scheme], info.disease)
        info = dataclasses.replace(info, classes=classes, disease=disease)
    root = source if source.is_dir() else source.parent
    find_subjects(records, root, info.group_by)
    read_images(records, root, info)
    unreadable = [record for record in records if record.excluded]
    if unreadable and not args.skip_unreadable:
        named = "; ".join(f"{root / record.path} ({record.excluded})" for record in unreadable[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise ValueError(f"{len(unreadable)} unreadable image(s): {named}{more}; --skip_unreadable sets them aside")

    # ---- duplicates, splits, audit ----
    near = near_duplicates(records, info.near)
    groups = group_names(records, near)
    dealt = [record.path for record in records] if args.leaky else groups
    splits = assign_splits(records, dealt, args.protocol, args.seed, args.fold)
    findings = audit(records, near, groups, splits, info)
    write_findings(target, findings)
    thumbnails = {record.path: record.thumbnail for record in records}
    drawn = draw_duplicates(target / "duplicates.png", findings, thumbnails, info.synthetic)
    counts = count_images(records, splits, info.classes)
    print(as_text(findings), counts_text(counts, info), sep="\n\n")
    print(f"audit: {target / 'audit.csv'}" + (f"; look at {target / 'duplicates.png'}" if drawn else ""))
    for split in SPLITS:
        empty = [class_name for class_name in info.classes if not counts[split][class_name]]
        if empty:
            raise ValueError(f"{source}: too few images, split {split} has none of class {', '.join(empty)}")
    errors = [found.check for found in findings if found.severity == "error"]
    if args.strict and errors:
        raise ValueError(f"{source}: not fit for use under --protocol {args.protocol}: {', '.join(errors)}")
    if args.audit:
        return

    # ---- the manifest ----
    mean, std = mean_and_std([r for r, split in zip(records, splits, strict=True) if split == "train"])
    settings = {
        "dataset": name,
        "info": dataclasses.replace(info, mean=mean, std=std).plain(),
        "protocol": args.protocol,
        "fold": "/".join(map(str, args.fold)) if args.protocol == "stratified" else None,
        "leaky": args.leaky,
        "label_scheme": args.label_scheme,
        "seed": args.seed,
        "source": str(root.resolve()),
        "images": len(records),
        "unreadable": len(unreadable),
        **duplicate_counts(records, near),
        "counts": counts,
    }
    write_manifest(target / "manifest.csv", records, splits, groups, info)
    files.write_json(target / "manifest.json", settings)
    totals = ", ".join(f"{sum(counts[split].values())} {split}" for split in SPLITS)
    print(f"{totals} ({args.protocol}){leak(settings)}: {target / 'manifest.csv'}")


def find_source(args: argparse.Namespace, known: DatasetInfo | None, name: str, target: Path) -> Path:
    """The folder or table to read: --source, a download, freshly made phantoms, or what already lies in Dataset/<name>.

    Raises FileNotFoundError, ValueError or OSError that says what to give."""
    if known and known.torchvision:
        from preparation.torchvision_sets import write_images

        return write_images(known, target, args.source or target, args.download)
    if args.source is not None:
        return args.source
    if known is None:
        raise ValueError(f"--dataset {name}: none of {', '.join(DATASETS)}; for your own images give --source DIR")
    if args.download:
        from preparation.download import download_kaggle

        return download_kaggle(known, name)
    if known.synthetic:
        from preparation.phantom_cytology import write_phantom_cytology
        from preparation.phantom_mri import write_phantom_mri

        write = {"Phantom_MRI": write_phantom_mri, "Phantom_Cytology": write_phantom_cytology}[name]
        source = target / f"phantoms_{args.subjects}x{args.phantom_size}px_seed{args.seed}"
        if not (source / "complete").is_file():
            write(source, args.subjects, size=args.phantom_size, seed=args.seed)
            files.write_text(source / "complete", "")
        return source
    if any((target / name).is_dir() for name in ("Training", "process", "im_Dyskeratotic")):
        return target
    raise FileNotFoundError(f"{target} holds no images; give --source DIR (the unzipped Kaggle archive) or --download")


def describe(args: argparse.Namespace, known: DatasetInfo | None, name: str, classes: tuple[str, ...]) -> DatasetInfo:
    """What the data set is, with what the command line says of it. Raises ValueError if --disease names no class."""
    info = known or DatasetInfo(title=name, classes=classes)
    if args.disease:
        unknown = sorted(set(args.disease) - set(classes))
        if unknown:
            raise ValueError(f"--disease {', '.join(unknown)}: no such class; classes are {', '.join(classes)}")
        info = dataclasses.replace(info, disease=tuple(args.disease))
    return dataclasses.replace(
        info,
        fit=args.fit,
        window=tuple(args.window) if args.window else None,
        group_by=args.group_by or info.group_by,
        near=args.near or info.near,
    )


def write_manifest(path: Path, records: list[Record], splits: list[str], groups: list[str], info: DatasetInfo) -> None:
    """Write the table whose columns the design fixes; the same images and settings give the same bytes anywhere."""
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(MANIFEST_COLUMNS)
        for record, split, group in zip(records, splits, groups, strict=True):
            label = info.classes.index(record.class_name)
            writer.writerow((record.path, label, record.class_name, split, group, record.sha256, record.width,
                             record.height, record.excluded))  # fmt: skip


def counts_text(counts: dict[str, dict[str, int]], info: DatasetInfo) -> str:
    """Images by split and class, for the screen."""
    width = max(12, *(len(name) + 2 for name in info.classes))
    lines = [f"{'images':<8}" + "".join(f"{name:>{width}}" for name in info.classes) + f"{'all':>8}"]
    for split, row in counts.items():
        lines.append(
            f"{split:<8}" + "".join(f"{row[name]:>{width}}" for name in info.classes) + f"{sum(row.values()):>8}"
        )
    return "\n".join(lines)


def leak(settings: dict) -> str:
    """How many of the published test images are training images too."""
    leaked, testing = settings["testing_images_also_in_training"], settings["testing_images"]
    return f"; {leaked} of {testing} Testing images ({leaked / testing:.0%}) are also in Training" if leaked else ""


if __name__ == "__main__":
    cli.run(get_args_parser, main)
