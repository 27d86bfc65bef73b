"""The settings beside certificates: everything that the certificates depend on, and how they were made."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import torch

from common import files
from imaging.catalogue import DatasetInfo, dataset_name
from models import Pipeline, fingerprint, hardware, instruction_set, resolve_amp
from models.flags import fixed_by
from smoothing.noise import NOISE_VERSION
from smoothing.rules import RULE_VERSION


def describe(args: argparse.Namespace, pipeline: Pipeline, info: DatasetInfo, device: torch.device) -> dict:
    """The settings that follow from the flags of AE_DS_verify.py, the networks and this machine, without sigma and the
    images."""
    if args.radius_tol is not None:
        method = {"method": "planned", "radius_tol": args.radius_tol}
    else:
        method = {"method": "sequential", "radii": args.radii} if args.sequential else {"method": "fixed"}
    amp = resolve_amp(args.amp, device)
    return {
        "dataset": dataset_name(args.dataset or pipeline.dataset),
        "synthetic": info.synthetic,
        "image_size": pipeline.image_size,
        "channels": pipeline.channels,
        "N0": args.N0,
        "N": args.N,
        "alpha": args.alpha,
        **method,
        "group_rule": args.group_rule,
        "rule_version": RULE_VERSION,
        "noise": args.noise,
        "noise_version": NOISE_VERSION,
        "seed": args.seed,
        "amp": amp,
        "compile": args.compile,
        "device": device.type,
        # These must agree when a run resumes: another GPU draws other noise, and other instructions round bfloat16
        # differently.
        **({"gpu": hardware(device)} if device.type == "cuda" else {}),
        **({"instruction_set": instruction_set(device)} if device.type == "cpu" and amp else {}),
        "classifier": str(args.classifier),
        "classifier_sha256": fingerprint(args.classifier),
        **fixed_by(args, pipeline),
        "denoiser": str(args.pretrained_denoiser) if args.pretrained_denoiser else None,
        "denoiser_sha256": fingerprint(args.pretrained_denoiser) if args.pretrained_denoiser else None,
        **{
            f"{half}_sha256": files.sha256(path)
            for half, path in (("encoder", args.pretrained_encoder), ("decoder", args.pretrained_decoder))
            if path
        },
        "batch": args.batch,
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "hardware": hardware(device),
        "torch": torch.__version__,
    }
