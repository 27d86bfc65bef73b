"""From the flags that name a pipeline (`cli.Parser.add_pipeline_flags`) to the pipeline."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from imaging.catalogue import DatasetInfo, dataset_info, prepared_info
from models import Pipeline, load_pipeline


def described_classifier(args: argparse.Namespace) -> dict[str, Any]:
    """The description of the classifier on the command line, for `models.load_classifier`; its classes are those of
    `--dataset`."""
    classes = None if args.dataset is None else dataset_info(args.dataset, args.data_dir).classes
    names = ("scores", "dataset", "image_size", "channels", "output", "axes")
    described = {name: getattr(args, name) for name in names}
    return described | {"classes": classes, "num_classes": None if classes is None else len(classes)}


def described_reconstructor(args: argparse.Namespace) -> dict[str, Any]:
    """The description of the reconstruction network on the command line, for `measurements.load_reconstructor`."""
    names = ("seed", "dataset", "image_size", "channels", "output", "axes", "measurement", "acceleration")
    return {name: getattr(args, name) for name in names}


def open_pipeline(args: argparse.Namespace, device: torch.device) -> Pipeline:
    """The pipeline of the flags, frozen, on `device`. Raises what `models.load_pipeline` does."""
    return load_pipeline(
        args.classifier,
        args.pretrained_denoiser,
        device,
        args.pretrained_encoder,
        args.pretrained_decoder,
        **described_classifier(args),
    )


def say_order(spec: Path | str, told: dict[str, Any] | None, info: DatasetInfo) -> None:
    """Print which class each output of a classifier is taken for, if it does not store its classes (`told` is None)."""
    if told is None:
        print(f"--classifier {spec}: its outputs mean {info.order} (another order: prepare_data.py --classes)")


def info_of(args: argparse.Namespace, pipeline: Pipeline) -> DatasetInfo:
    """The description of the data set: that of `--dataset`, else that of the classifier's training data, which a
    checkpoint stores even if the data is not prepared. If there is a manifest, it says which classes are disease.
    Raises ValueError if the classifier has other classes."""
    name = args.dataset or pipeline.dataset
    if pipeline.info is not None and name == pipeline.dataset:
        info = DatasetInfo.from_plain(pipeline.info)
        prepared = prepared_info(name, args.data_dir)
        if prepared is not None and prepared.classes == info.classes:
            info = dataclasses.replace(info, disease=prepared.disease)
    else:
        info = dataset_info(name, args.data_dir)
        info.check_classes(args.classifier, pipeline.info)
    if pipeline.num_classes != len(info.classes):
        raise ValueError(f"{args.classifier}: has {pipeline.num_classes} classes, but {name} has {len(info.classes)}")
    return info
