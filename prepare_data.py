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
import dataclasses
from pathlib import Path

from common import cli, files
from datasets import PROTOCOLS, SPLITS
from imaging.catalogue import DATASETS, DatasetInfo, dataset_name
from imaging.images import FITS
from preparation.audit import as_text, audit, count_images, counts_text, draw_duplicates, write_findings
from preparation.duplicates import duplicate_counts, group_names, near_duplicates
from preparation.manifest import write_manifest
from preparation.scan import mean_and_std, read_images
from preparation.sources import find_images, find_subjects, other_files, relabel
from preparation.splits import FOLDS, assign_splits


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    data = parser.add_argument_group("data")
    data.add_argument(
        "--dataset", default="Phantom_MRI", help=f"{', '.join(DATASETS)}, or any name for your own images"
    )
    data.add_argument("--source", type=Path, help="folder (or CSV file) of images; of CIFAR10 and MNIST, torchvision's")
    data.add_argument("--download", action="store_true", help="fetch it from Kaggle (needs kagglehub) or torchvision")
    data.add_argument("--data_dir", type=Path, default=Path("Dataset"), help="where <dataset>/manifest.csv goes")
    data.add_argument("--label_scheme", help="other classes made of these; SIPADMEK: three (abnormal, benign, normal)")
    data.add_argument("--disease", nargs="+", metavar="CLASS", help="your own images: classes not to be missed")
    data.add_argument(
        "--group_by", metavar="REGEX", help="finds in a path whose image it is: groups never cross splits"
    )
    data.add_argument(
        "--near",
        type=cli.positive_share,
        metavar="R",
        help="correlation from which two images are one (default: 0.98; 1: identical only)",
    )
    data.add_argument("--skip_unreadable", action="store_true", help="set unreadable images aside instead of stopping")
    split = parser.add_argument_group("split")
    split.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        help="official: the published split (default of CIFAR10, MNIST); stratified: pooled, 70/10/20 "
        "(default of all others)",
    )
    split.add_argument(
        "--fold",
        type=cli.shard,
        default=(0, FOLDS),
        metavar="I/K",
        help="stratified: the part for testing (default: 0/5)",
    )
    split.add_argument(
        "--leaky", action="store_true", help="stratified: deal single images, as others do: only to show what that does"
    )
    form = parser.add_argument_group("form")
    form.add_argument("--fit", choices=FITS, default="resize", help="stretch to a square, or keep the proportions")
    form.add_argument("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help="grey levels of DICOM and NIfTI")
    form.add_argument(
        "--slices",
        type=cli.positive_int,
        help="of each NIfTI volume, DICOM file of several frames or DICOM series, from its middle half "
        "(default: one; all files of a series)",
    )
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
    if args.protocol is None:
        args.protocol = "official" if known and known.torchvision else "stratified"
    check_flags(args)

    # ---- the images, and what they are ----
    source = find_source(args, known, name, target)
    records, classes = find_images(source, known, args.slices)
    info = describe(args, known, name, classes)
    if args.label_scheme:
        if args.label_scheme not in info.schemes:
            raise ValueError(f"--label_scheme {args.label_scheme}: {name} has {', '.join(info.schemes) or 'none'}")
        classes, disease = relabel(records, info.schemes[args.label_scheme], info.disease)
        info = dataclasses.replace(info, classes=classes, disease=disease)
    if args.disease:
        info = dataclasses.replace(info, disease=known_classes(args.disease, info.classes))
    root = source if source.is_dir() else source.parent
    find_subjects(records, root, info.group_by)
    read_images(records, root, info, target / "cache")
    unreadable = [record for record in records if record.excluded]

    # ---- duplicates, splits, audit ----
    near = near_duplicates(records, info.near)
    groups = group_names(records, near)
    dealt = [record.path for record in records] if args.leaky else groups
    pictures = group_names(records, near, subjects=False)
    splits = assign_splits(records, dealt, args.protocol, args.seed, args.fold, pictures)
    findings = audit(records, near, groups, splits, info, other_files(source))
    write_findings(target, findings)
    drawn = draw_duplicates(target / "duplicates.png", findings, records, info.synthetic)
    counts = count_images(records, splits, info.classes)
    print(as_text(findings), counts_text(counts, info.classes), sep="\n\n")
    print(f"audit: {target / 'audit.csv'}" + (f"; look at {target / 'duplicates.png'}" if drawn else ""))
    if unreadable and not args.skip_unreadable:
        named = "; ".join(f"{root / record.path} ({record.excluded})" for record in unreadable[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise ValueError(f"{len(unreadable)} unreadable image(s): {named}{more}; --skip_unreadable sets them aside")
    for split in SPLITS:
        empty = [class_name for class_name in info.classes if not counts[split][class_name]]
        if empty:
            held = [group for group, held_by in zip(groups, splits, strict=True) if held_by]
            few = f" ({len(held)} images are {len(set(held))} groups; try --near, --group_by, --fold 0/3)"
            raise ValueError(f"{source}: too few images, split {split} has none of class {', '.join(empty)}{few}")
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
        "near": info.near,
        "group_by": info.group_by,
        "slices": args.slices or 1,
        "seed": args.seed,
        "source": str(root.resolve()),
        "images": len(records),
        "unreadable": len(unreadable),
        **duplicate_counts(records, near),
        "counts": counts,
    }
    write_manifest(target, records, splits, groups, info, settings)
    totals = ", ".join(f"{sum(counts[split].values())} {split}" for split in SPLITS)
    print(f"{totals} ({args.protocol}){leak(settings)}: {target / 'manifest.csv'}")


def check_flags(args: argparse.Namespace) -> None:
    """Raises ValueError on flags that contradict each other."""
    if args.window and not args.window[0] < args.window[1]:
        raise ValueError(f"--window {args.window[0]:g} {args.window[1]:g}: must be LOW HIGH with LOW < HIGH")
    if args.fold[1] < 2:
        raise ValueError("--fold {}/{}: K must be at least 2".format(*args.fold))
    if args.protocol == "official" and (args.leaky or args.fold != (0, FOLDS)):
        raise ValueError(f"{'--leaky' if args.leaky else '--fold'} deals images anew: it needs --protocol stratified")


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
        least = 2 * len(known.classes)
        if args.subjects < least:
            raise ValueError(f"--subjects {args.subjects}: must be at least {least}, two of each class")
        from preparation import phantom_cytology, phantom_mri

        write, version = {
            "Phantom_MRI": (phantom_mri.write_phantom_mri, phantom_mri.VERSION),
            "Phantom_Cytology": (phantom_cytology.write_phantom_cytology, phantom_cytology.VERSION),
        }[name]
        source = target / f"phantoms_v{version}_{args.subjects}x{args.phantom_size}px_seed{args.seed}"
        if not (source / "complete").is_file():
            write(source, args.subjects, size=args.phantom_size, seed=args.seed)
            files.write_text(source / "complete", "")
        return source
    if any((target / name).is_dir() for name in ("Training", "process", "im_Dyskeratotic")):
        return target
    raise FileNotFoundError(f"{target} holds no images; give --source DIR (the unzipped Kaggle archive) or --download")


def describe(args: argparse.Namespace, known: DatasetInfo | None, name: str, classes: tuple[str, ...]) -> DatasetInfo:
    """What the data set is, with what the command line says of its images."""
    info = known or DatasetInfo(title=name, classes=classes)
    return dataclasses.replace(
        info,
        fit=args.fit,
        window=tuple(args.window) if args.window else None,
        group_by=args.group_by or info.group_by,
        near={None: info.near, 1: None}.get(args.near, args.near),
    )


def known_classes(disease: list[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of --disease, which are those of the label scheme. Raises ValueError if one is none."""
    unknown = sorted(set(disease) - set(classes))
    if unknown:
        raise ValueError(f"--disease {', '.join(unknown)}: no such class; classes are {', '.join(classes)}")
    if set(disease) == set(classes):
        raise ValueError("--disease: names every class; leave out those that are healthy")
    return tuple(disease)


def leak(settings: dict) -> str:
    """How many of the published test images are training images too."""
    leaked, testing = settings["testing_images_also_in_training"], settings["testing_images"]
    return f"; {leaked} of {testing} Testing images ({leaked / testing:.0%}) are also in Training" if leaked else ""


if __name__ == "__main__":
    cli.run(get_args_parser, main)
