"""Train a denoiser end to end in front of a frozen classifier (denoised smoothing, Salman et al. 2020).

    python main_ds.py --classifier runs/Phantom_MRI/classifier/best.pth.tar --noise_sd 0.25 --objective stability \\
        --mse_weight 10 --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --outdir runs/Phantom_MRI/stability

stability: agree with the classifier's own clean answer (no labels needed); classification: with the label. Either plus
`mse_weight` times the reconstruction error. `best` agrees most with its target on the noisy validation split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import cli
import files
from datasets import get_dataset, get_loader
from models import build, load_model, names, prepare
from training import flags, losses, validation
from training.augmentation import random_affine
from training.engine import fit
from training.noise import add_noise, noise_range
from training.run_directory import RunDirectory


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    model = parser.add_argument_group("model")
    model.add_argument("--classifier", type=Path, required=True, help="checkpoint of the frozen classifier f")
    model.add_argument("--pretrained_denoiser", type=Path, help="checkpoint to start from (default: from scratch)")
    model.add_argument("--arch", choices=names("denoiser"), default="nafnet", help="of a denoiser from scratch")
    objective = parser.add_argument_group("objective")
    objective.add_argument("--objective", choices=["stability", "classification"], default="stability")
    objective.add_argument("--mse_weight", type=cli.non_negative_float, default=0.0, help="of the reconstruction error")
    flags.add_noise_flag(objective)
    flags.add_training_flags(
        parser,
        lr=3e-4,
        epochs=40,
        weight_decay=1e-4,
        dataset_help="name of a prepared data set (default: the one f was trained on)",
    )
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    noise_sd = noise_range(args.noise_sd)
    device = flags.set_up(args)

    # ---- models ----
    classifier, made = load_model(args.classifier, "classifier", device)
    classifier.requires_grad_(False)
    size, channels = made["image_size"], made["arch_kwargs"]["channels"]
    if args.pretrained_denoiser is not None:
        denoiser, start = load_model(args.pretrained_denoiser, "denoiser", device)
        describe = {key: start[key] for key in ("arch", "arch_kwargs")}
        if describe["arch_kwargs"]["channels"] != channels:
            raise ValueError(f"{args.pretrained_denoiser}: made for {describe['arch_kwargs']['channels']} channel(s), "
                             f"but the classifier takes {channels}")  # fmt: skip
    else:
        describe = {"arch": args.arch, "arch_kwargs": {"channels": channels}}
        denoiser = prepare(build(args.arch, channels=channels), device)
    args.dataset = args.dataset or made["dataset"]
    describe |= {"dataset": args.dataset, "image_size": size}

    # ---- data ----
    train_data, val_data = (
        get_dataset(args.dataset, split, size, args.protocol, channels, args.data_dir) for split in ("train", "val")
    )
    train_loader = get_loader(train_data, args.batch, True, args.workers, random_affine if args.augment else None)
    val_loader = get_loader(val_data, args.batch)

    # ---- training ----
    def loss_fn(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        noisy, sd = add_noise(images, noise_sd)
        denoised = denoiser(noisy, sd)
        logits = classifier(denoised)
        if args.objective == "stability":
            with torch.no_grad():
                clean_logits = classifier(images)
            loss = losses.stability(logits, clean_logits)
        else:
            loss = losses.classification(logits, labels)
        if args.mse_weight:
            loss = loss + args.mse_weight * losses.reconstruction(denoised, images)
        return loss

    def validate() -> dict[str, float]:
        def classify(x: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
            return classifier(denoiser(x, sd))

        return validation.accuracy(classify, val_loader, device, noise_sd, classifier)

    score = "val_agreement" if args.objective == "stability" else "val_accuracy"
    fixed = {"manifest": train_data.manifest.digest, "classifier_sha256": files.sha256(args.classifier)}
    run = RunDirectory(args.outdir, {**vars(args), **fixed}, args.resume)
    best = fit(denoiser, loss_fn, validate, score, train_loader, run, args, device, describe)
    print(f"accuracy on noisy validation images {best['val_accuracy']:.1%} (epoch {best['epoch']}): "
          f"{args.outdir}/best.pth.tar")  # fmt: skip


if __name__ == "__main__":
    cli.run(get_args_parser, main)
