"""Find, download or generate a data set, check it, split it, write its manifest.

    python prepare_data.py --dataset Phantom_MRI
    python prepare_data.py --dataset Brain_Tumor --source ~/Downloads/archive --protocol stratified

and your own images, a folder for each class, or a table path,label[,group][,split]:

    python prepare_data.py --dataset My_Scans --source my_scans/ --group_by '(patient\\d+)' --disease tumour

Every run first audits the images: unreadable files, duplicates, contradictory labels, groups across splits, shortcuts.
With --audit it stops there; with --strict it ends with exit code 1 if the data is not fit for use.
"""

from __future__ import annotations

from common.script import start

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import cli, files, resources
from datasets import SPLITS
from imaging.catalogue import DATASETS, DatasetInfo, dataset_name
from preparation.audit import as_text, audit, count_images, counts_text, draw_duplicates, write_findings
from preparation.classes import in_order, other_order
from preparation.duplicates import duplicate_counts, group_names, near_duplicates
from preparation.fitness import must_be_filled, must_be_readable, must_pass
from preparation.flags import add_flags, check_flags
from preparation.manifest import write_manifest
from preparation.origin import find_source
from preparation.scan import Record, mean_and_std, read_images
from preparation.sources import Reading, find_images, find_subjects, other_files, relabel, what_was_read
from preparation.splits import assign_splits


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    add_flags(parser)
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    resources.refuse_what_is_not_there()
    name = dataset_name(args.dataset)
    known, target = DATASETS.get(name), args.data_dir / name
    check_flags(args, known)
    with files.HeldFolder(target, "--data_dir", "name another --data_dir"):
        prepare(args, name, known, target)


def prepare(args: argparse.Namespace, name: str, known: DatasetInfo | None, target: Path) -> None:
    """Find, read, check and split the images, and write what was found to the folder `target`."""
    # ---- the images, and what they are ----
    source = find_source(args, known, name, target)
    reading = Reading(args.layout, args.leave_out, args.keep_masks)
    records, classes = find_images(source, known, args.slices, args.volume, reading)
    info = describe(args, records, known, classes)
    print(f"classes: {info.order}", *notes(args, records, source, known, info), sep="\n")
    root = source if source.is_dir() else source.parent
    find_subjects(records, root, info.group_by)
    read_images(records, root, info, target / "cache")

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

    # ---- is it fit for use? ----
    unreadable = [record for record in records if record.excluded.startswith("unreadable")]
    if not args.skip_unreadable:
        must_be_readable(unreadable, root)
    must_be_filled(source, info, counts, [group for group, split in zip(groups, splits, strict=True) if split])
    if args.strict:
        must_pass(source, args.protocol, findings)
    if args.audit:
        return

    # ---- the manifest ----
    mean, std = mean_and_std([r for r, split in zip(records, splits, strict=True) if split == "train"])
    settings = {
        "dataset": name,
        "info": dataclasses.replace(info, mean=mean, std=std).plain(),
        **told(args, info),
        "source": str(root.resolve()),
        "images": len(records),
        "unreadable": len(unreadable),
        **duplicate_counts(records, near),
        "counts": counts,
    }
    write_manifest(target, records, splits, groups, info, settings)
    totals = ", ".join(f"{sum(counts[split].values())} {split}" for split in SPLITS)
    print(f"{totals} ({args.protocol}){leak(settings)}: {target / 'manifest.csv'}")


def notes(
    args: argparse.Namespace, records: Sequence[Record], source: Path, known: DatasetInfo | None, info: DatasetInfo
) -> list[str]:
    """What a user should see of the order of the classes and of how the folders were read."""
    order = [] if known or args.classes else [other_order(info.classes)]
    return list(filter(None, [*order, *what_was_read(records, source, known)]))


def told(args: argparse.Namespace, info: DatasetInfo) -> dict[str, Any]:
    """What the manifest keeps of the command line."""
    return {
        "protocol": args.protocol,
        "fold": "/".join(map(str, args.fold)) if args.protocol == "stratified" else None,
        "leaky": args.leaky,
        "label_scheme": args.label_scheme,
        "layout": args.layout,
        "leave_out": args.leave_out,
        "keep_masks": args.keep_masks,
        "near": info.near,
        "group_by": info.group_by,
        "slices": args.slices or 1,
        "seed": args.seed,
    }


def describe(
    args: argparse.Namespace, records: Sequence[Record], known: DatasetInfo | None, classes: tuple[str, ...]
) -> DatasetInfo:
    """What the data set is, with what the command line says of its images; --label_scheme changes the classes of
    `records`. Raises ValueError on a scheme or a class that is not known."""
    name = dataset_name(args.dataset)
    info = known or DatasetInfo(title=name, classes=classes)
    info = dataclasses.replace(
        info,
        fit=args.fit,
        window=tuple(args.window) if args.window else None,
        group_by=args.group_by or info.group_by,
        near={None: info.near, 1: None}.get(args.near, args.near),
    )
    if args.label_scheme:
        if args.label_scheme not in info.schemes:
            raise ValueError(f"--label_scheme {args.label_scheme}: {name} has {', '.join(info.schemes) or 'none'}")
        classes, disease = relabel(records, info.schemes[args.label_scheme], info.disease)
        info = dataclasses.replace(info, classes=classes, disease=disease)
    if args.classes:
        info = dataclasses.replace(info, classes=in_order(info.classes, args.classes))
    if args.disease:
        info = dataclasses.replace(info, disease=known_classes(args.disease, info.classes))
    return info


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
    start(get_args_parser, main)
