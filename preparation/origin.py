"""Where the raw images come from: the user's folder or table, a download, phantoms made here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from common import files
from imaging.catalogue import DATASETS, DatasetInfo


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

        write: Callable[..., None] = phantom_mri.write_phantom_mri
        version = phantom_mri.VERSION
        if name == "Phantom_Cytology":
            write, version = phantom_cytology.write_phantom_cytology, phantom_cytology.VERSION
        source = target / f"phantoms_v{version}_{args.subjects}x{args.phantom_size}px_seed{args.seed}"
        if not (source / "complete").is_file():
            with files.naming(source):
                write(source, args.subjects, size=args.phantom_size, seed=args.seed)
            files.write_text(source / "complete", "")
        return source
    if any((target / name).is_dir() for name in ("Training", "process", "im_Dyskeratotic")):
        return target
    raise FileNotFoundError(f"{target} holds no images; give --source DIR (the unzipped Kaggle archive) or --download")
