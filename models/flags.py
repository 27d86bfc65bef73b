"""From the flags that name a pipeline (`cli.Parser.add_pipeline_flags`) to the pipeline."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch

from imaging.catalogue import DatasetInfo, dataset_info, prepared_info
from models import Pipeline, load_pipeline
from models.foreign import TO_CHOOSE
from models.kinds import DESCRIBING


def described_classifier(args: argparse.Namespace) -> dict[str, Any]:
    """The description of the classifier on the command line, for `models.load_classifier`; its classes are those of
    `--dataset`."""
    names = ("scores", "dataset", "image_size", "channels", *TO_CHOOSE)
    described = {name: getattr(args, name) for name in names} | from_elsewhere(args)
    if args.dataset is None:
        return described | {"classes": None, "num_classes": None}
    info = dataset_info(args.dataset, args.data_dir)
    return described | {"classes": info.classes, "num_classes": len(info.classes), "aliases": info.aliases}


def from_elsewhere(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of a classifier from elsewhere: `models.kinds.DESCRIBING`; only what is given."""
    flags = {"arch": "classifier_arch", "outputs": "classes"}  # where the names differ
    given = {name: getattr(args, flags.get(name, name)) for name in DESCRIBING}
    return {name: value for name, value in given.items() if value is not None}


def fixed_by(args: argparse.Namespace, pipeline: Pipeline) -> dict[str, Any]:
    """The settings of a result that say how parts from elsewhere were used; {} for ours."""
    chosen = {name: getattr(args, name) for name in (*TO_CHOOSE, "denoiser_scale") if getattr(args, name) is not None}
    given = from_elsewhere(args)
    if pipeline.kind is not None and args.scores != "logits":
        given["scores"] = args.scores
    weights = {"classifier_weights_sha256": pipeline.weights_sha256} if pipeline.weights_sha256 else {}
    return chosen | ({"classifier_flags": given} if given else {}) | weights


def described_reconstructor(args: argparse.Namespace) -> dict[str, Any]:
    """The description of the reconstruction network on the command line, for `measurements.load_reconstructor`."""
    names = ("seed", "dataset", "image_size", "channels", "output", "axes", "measurement", "acceleration")
    return {name: getattr(args, name) for name in names}


def open_pipeline(args: argparse.Namespace, device: torch.device, freeze: bool = True) -> Pipeline:
    """The pipeline of the flags, frozen (unless `freeze` is False), on `device`. Prints what a classifier from
    elsewhere was recognised as. Raises what `models.load_pipeline` does."""
    pipeline = load_pipeline(
        args.classifier,
        args.pretrained_denoiser,
        device,
        args.pretrained_encoder,
        args.pretrained_decoder,
        args.denoiser_scale,
        freeze,
        **described_classifier(args),
    )
    announce(args.classifier, pipeline.kind)
    return pipeline


def announce(classifier: object, kind: str | None) -> None:
    """Say what a classifier from elsewhere was recognised as."""
    if kind is not None:
        print(f"--classifier {classifier}: {kind}")


def say_order(spec: Path | str, told: Any, info: DatasetInfo) -> None:
    """Print which class each output of a classifier is taken for, if neither its file nor a flag says it (`told` is
    None)."""
    if told is None:
        print(f"--classifier {spec}: its outputs mean {info.order} (another order: --classes)")


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
