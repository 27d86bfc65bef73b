"""Find, download or generate a data set, check it, split it, write its manifest.

python prepare_data.py --dataset Brain_Tumor --source ~/Downloads/archive --protocol stratified
python prepare_data.py --dataset Phantom_MRI
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import cli
import files
from datasets import DATASETS, MANIFEST_COLUMNS, PROTOCOLS, SPLITS, DatasetInfo, dataset_info
from preparation.duplicates import group_names, identical_groups, near_pairs
from preparation.scan import Record, find_images, read_images
from preparation.splits import assign_splits


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument("--dataset", choices=list(DATASETS), default="Phantom_MRI", help="which data set")
    parser.add_argument("--source", type=Path, help="folder with Training/<class>/ and Testing/<class>/")
    parser.add_argument("--download", action="store_true", help="fetch it from Kaggle (needs kagglehub)")
    parser.add_argument("--data_dir", type=Path, default=Path("Dataset"), help="where <dataset>/manifest.csv goes")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="stratified",
                        help="official: the published Training/Testing; stratified: pooled, 70/10/20")  # fmt: skip
    parser.add_argument(
        "--skip_unreadable", action="store_true", help="set unreadable images aside instead of stopping"
    )
    parser.add_argument("--subjects", type=cli.positive_int, default=200, help="phantoms: number of subjects")
    parser.add_argument("--phantom_size", type=cli.positive_int, default=96, help="phantoms: side in pixels")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    info = dataset_info(args.dataset)
    target = args.data_dir / args.dataset

    # ---- the images ----
    source = find_source(args, info, target)
    records = find_images(source, info)
    read_images(records, source)
    unreadable = [record for record in records if record.excluded]
    if unreadable and not args.skip_unreadable:
        named = "; ".join(f"{source / record.path} ({record.excluded})" for record in unreadable[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise ValueError(f"{len(unreadable)} unreadable image(s): {named}{more}; --skip_unreadable sets them aside")

    # ---- duplicates and splits ----
    near = near_duplicates(records)
    groups = group_names(records, near)
    splits = assign_splits(records, groups, args.protocol, args.seed)
    counts = count_images(records, splits, info)
    for split in SPLITS:
        empty = [name for name in info.classes if not counts[split][name]]
        if empty:
            raise ValueError(f"{source}: too few images, split {split} has none of class {', '.join(empty)}")

    # ---- the manifest ----
    settings = {
        "dataset": args.dataset,
        "protocol": args.protocol,
        "seed": args.seed,
        "source": str(source.resolve()),
        "synthetic": info.synthetic,
        "images": len(records),
        "unreadable": len(unreadable),
        **duplicate_counts(records, near),
        "counts": counts,
    }
    write_manifest(target / "manifest.csv", records, splits, groups, info)
    files.write_json(target / "manifest.json", settings)
    print(report(settings, info))
    totals = ", ".join(f"{sum(counts[split].values())} {split}" for split in SPLITS)
    print(f"{totals} ({args.protocol}); {leak(settings)}: {target / 'manifest.csv'}")


def find_source(args: argparse.Namespace, info: DatasetInfo, target: Path) -> Path:
    """The folder to read: --source, a download, freshly made phantoms, or what already lies in Dataset/<name>."""
    if args.source is not None:
        return args.source
    if args.download:
        from preparation.download import download_kaggle

        return download_kaggle(info, args.dataset)
    if info.synthetic:
        from preparation.phantoms import write_phantom_mri

        source = target / f"phantoms_{args.subjects}x{args.phantom_size}px_seed{args.seed}"
        if not (source / "complete").is_file():
            write_phantom_mri(source, subjects=args.subjects, size=args.phantom_size, seed=args.seed)
            files.write_text(source / "complete", "")
        return source
    if (target / "Training").is_dir():
        return target
    raise FileNotFoundError(
        f"{target}/Training is missing; give --source DIR (the unzipped Kaggle archive) or --download"
    )


def near_duplicates(records: list[Record]) -> list[tuple[int, int, float]]:
    """The pairs of readable images that are nearly the same picture, identical ones included."""
    readable = [i for i, record in enumerate(records) if record.thumbnail is not None]
    pairs = near_pairs(np.stack([records[i].thumbnail for i in readable])) if readable else []
    return [(readable[i], readable[j], correlation) for i, j, correlation in pairs]


def duplicate_counts(records: list[Record], near: list[tuple[int, int, float]]) -> dict[str, int]:
    """How many images are there twice, how many of them in Training and in Testing, and under two labels."""
    identical = identical_groups(records)
    pairs = [(records[i], records[j]) for i, j, _ in near if records[i].sha256 != records[j].sha256]
    across = [group for group in identical if len({record.source_split for record in group}) > 1]
    conflicting = [group for group in identical if len({record.class_name for record in group}) > 1]
    leaked = {record.path for group in across for record in group if record.source_split == "Testing"}
    nearly = {
        r.path
        for pair in pairs
        for r in pair
        if r.source_split == "Testing" and pair[0].source_split != pair[1].source_split
    }
    return {
        "testing_images": sum(record.source_split == "Testing" for record in records),
        "duplicate_groups": len(identical),
        "superfluous_images": sum(len(group) - 1 for group in identical),
        "duplicate_groups_across_training_and_testing": len(across),
        "testing_images_also_in_training": len(leaked),
        "testing_images_nearly_in_training": len(nearly - leaked),
        "duplicate_groups_with_conflicting_labels": len(conflicting),
        "near_duplicate_pairs": len(pairs),
        "near_duplicate_pairs_with_conflicting_labels": sum(a.class_name != b.class_name for a, b in pairs),
    }


def count_images(records: list[Record], splits: list[str], info: DatasetInfo) -> dict[str, dict[str, int]]:
    """Images per split and class."""
    counts = {split: dict.fromkeys(info.classes, 0) for split in SPLITS}
    for record, split in zip(records, splits, strict=True):
        if split:
            counts[split][record.class_name] += 1
    return counts


def write_manifest(path: Path, records: list[Record], splits: list[str], groups: list[str], info: DatasetInfo) -> None:
    """Write the table whose columns the design fixes; the same images and settings give the same bytes anywhere."""
    with files.replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(MANIFEST_COLUMNS)
        for record, split, group in zip(records, splits, groups, strict=True):
            label = info.classes.index(record.class_name)
            writer.writerow((record.path, label, record.class_name, split, group, record.sha256, record.width,
                             record.height, record.excluded))  # fmt: skip


def report(settings: dict, info: DatasetInfo) -> str:
    """The manifest's settings as a few lines for the screen."""
    lines = [
        f"{settings['dataset']}: {settings['images']} images, {settings['unreadable']} unreadable, "
        f"{settings['duplicate_groups']} groups of identical images ({settings['superfluous_images']} superfluous), "
        f"{settings['duplicate_groups_with_conflicting_labels']} with conflicting labels",
        f"published split: {settings['duplicate_groups_across_training_and_testing']} groups lie in Training and in "
        f"Testing; {leak(settings)}",
        f"{settings['protocol']:<12}" + "".join(f"{name:>18}" for name in info.classes) + f"{'all':>8}",
    ]
    for split, counts in settings["counts"].items():
        row = "".join(f"{counts[name]:>18}" for name in info.classes)
        lines.append(f"{split:<12}{row}{sum(counts.values()):>8}")
    return "\n".join(lines)


def leak(settings: dict) -> str:
    """How many of the published test images are training images too."""
    leaked, testing = settings["testing_images_also_in_training"], settings["testing_images"]
    return f"{leaked} of {testing} Testing images ({leaked / testing:.0%}) are also in Training"


if __name__ == "__main__":
    cli.run(get_args_parser, main)
