"""From the flags that name a pipeline (`cli.Parser.add_pipeline_flags`) to the pipeline."""

from __future__ import annotations

import argparse
import dataclasses
from typing import Any

import torch

from imaging.catalogue import DatasetInfo, dataset_info, prepared_info
from models import Pipeline, load_pipeline
from models.kinds import DESCRIBING


def described_classifier(args: argparse.Namespace) -> dict[str, Any]:
    """The description of the classifier on the command line, for `models.load_classifier`; its classes are those of
    `--dataset`."""
    names = ("scores", "dataset", "image_size", "channels")
    described = {name: getattr(args, name) for name in names} | {"num_classes": None, **from_elsewhere(args)}
    if args.dataset is not None:
        info = dataset_info(args.dataset, args.data_dir)
        described |= {"num_classes": len(info.classes), "class_names": info.classes, "aliases": info.aliases}
    return described


def from_elsewhere(args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of a classifier from elsewhere: `models.kinds.DESCRIBING`; only what is given."""
    given = {name: getattr(args, "classifier_arch" if name == "arch" else name) for name in DESCRIBING}
    return {name: value for name, value in given.items() if value is not None}


def fixed_by(args: argparse.Namespace, pipeline: Pipeline) -> dict[str, Any]:
    """The settings of a result that say how a classifier from elsewhere was used; {} for one of ours."""
    given = from_elsewhere(args)
    if args.classifier is not None and pipeline.kind is not None and args.scores != "logits":
        given["scores"] = args.scores
    scale = {"denoiser_scale": args.denoiser_scale} if args.denoiser_scale is not None else {}
    weights = {"classifier_weights_sha256": pipeline.weights_sha256} if pipeline.weights_sha256 else {}
    return ({"classifier_flags": given} if given else {}) | scale | weights


def described_reconstructor(args: argparse.Namespace) -> dict[str, Any]:
    """The description of the reconstruction network on the command line, for `measurements.load_reconstructor`."""
    names = ("seed", "dataset", "image_size", "channels", "measurement", "acceleration")
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
