"""Train what stands in front of a frozen classifier end to end, by backpropagation or by queries alone.

    python main_ds.py --classifier runs/Phantom_MRI/classifier/best.pth.tar --noise_sd 0.25 --objective stability \\
        --mse_weight 10 --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --outdir runs/Phantom_MRI/stability

--model_type DS: a denoiser D (Salman et al. 2020); AE_DS: D, then an autoencoder (Zhang et al., ICLR 2022).
--objective stability: agree with the classifier's own clean answer (no labels needed); classification: with the label.
Either plus `mse_weight` times the reconstruction error of D. `best` agrees most with its target on the noisy validation
split.

    python main_ds.py --classifier … --optimization_method ZO --model_type AE_DS --pretrained_denoiser … \\
        --pretrained_encoder runs/Phantom_MRI/autoencoder/best.pth.tar --zo_method CGE --outdir runs/Phantom_MRI/zo

--optimization_method FO backpropagates through the classifier; ZO only queries what lies behind z, the denoised image
(DS) or the latent (AE_DS): the classifier, and the decoder. Queries are logged per epoch, those of validation included.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

import cli
from datasets import get_dataset, get_loader
from models import (
    BlackBox,
    QueriedClassifier,
    fingerprint,
    frozen,
    load_classifier,
    load_front,
    load_model,
    names,
    prepare,
)
from pipeline_args import described_classifier
from training import flags, losses, validation
from training.augmentation import random_affine
from training.engine import fit
from training.front import TRAIN_METHODS, choose_trained, run_front
from training.noise import add_noise, noise_range
from training.run_directory import RunDirectory
from training.zeroth_order import ESTIMATORS, gradient, guided, queries_of, surrogate_loss


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    model = parser.add_argument_group("model")
    cli.classifier_flags(model)
    model.add_argument("--surrogates", type=Path, nargs="+", default=[], metavar="F",
                       help="checkpoints to train against in its place, one per step at random")  # fmt: skip
    model.add_argument("--model_type", choices=["DS", "AE_DS"], default="DS", help="without or with an autoencoder")
    model.add_argument("--pretrained_denoiser", type=Path, help="checkpoint to start from (default: from scratch)")
    model.add_argument("--pretrained_encoder", type=Path, help="an autoencoder's checkpoint, for AE_DS")
    model.add_argument("--pretrained_decoder", type=Path, help="another one (default: the encoder's)")
    model.add_argument("--arch", choices=names("denoiser"), default="nafnet", help="of a denoiser from scratch")
    model.add_argument("--latent", type=cli.positive_int, default=576, help="numbers in a new autoencoder's latent")
    model.add_argument("--train_method", choices=TRAIN_METHODS,
                       help="part: D; whole: D and E; whole_plus: D, E, Dec")  # fmt: skip
    objective = parser.add_argument_group("objective")
    objective.add_argument("--objective", choices=["stability", "classification"], default="stability")
    objective.add_argument("--mse_weight", type=cli.non_negative_float, default=0.0, help="of the reconstruction error")
    flags.add_noise_flag(objective)
    zeroth = parser.add_argument_group("optimisation method")
    zeroth.add_argument("--optimization_method", choices=["FO", "ZO"], default="FO", help="with gradients, or queries")
    zeroth.add_argument("--zo_method", choices=[*ESTIMATORS, "guided"], default="RGE_orthogonal",
                        help="gradient estimate; guided: a surrogate's gradient first")  # fmt: skip
    zeroth.add_argument("--q", type=cli.positive_int, help="directions per image (default: 192; CGE: all coordinates)")
    zeroth.add_argument("--mu", type=cli.positive_float, default=5e-3, help="step of the finite differences")
    zeroth.add_argument("--zo_batch", type=cli.positive_int, help="queries per pass (default: 64, on CUDA 1024)")
    zeroth.add_argument("--query_budget", type=cli.positive_int, help="stop when so many queries are spent, in all")
    zeroth.add_argument("--force", action="store_true", help="even where a step takes more queries than it should")
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
    zeroth_order = args.optimization_method == "ZO"
    args.train_method = args.train_method or ("whole" if args.model_type == "AE_DS" else "part")
    if zeroth_order and args.train_method == "whole_plus":
        raise ValueError("--train_method whole_plus: with ZO the decoder is behind the queries and gets no gradient")
    device = flags.set_up(args)

    # ---- models ----
    classifier, made = load_classifier(args.classifier, device, **described_classifier(args))
    surrogates = load_surrogates(args, made, device)
    if isinstance(classifier, QueriedClassifier) and not (zeroth_order or surrogates):
        raise ValueError(
            f"--classifier {args.classifier}: gives no gradients; use --optimization_method ZO or --surrogates"
        )
    classifier = frozen(classifier)
    size, channels = made["image_size"], made["arch_kwargs"]["channels"]
    front, describe = load_front(
        channels, size, device, args.pretrained_denoiser, args.pretrained_encoder, args.pretrained_decoder,
        args.model_type, args.arch, args.latent,
    )  # fmt: skip
    front = prepare(front, device)
    choose_trained(front, args.train_method)
    args.dataset = args.dataset or made["dataset"]

    # ---- data ----
    train_data, val_data = (
        get_dataset(args.dataset, split, size, args.protocol, channels, args.data_dir) for split in ("train", "val")
    )
    describe |= {"image_size": size, **train_data.manifest.described()}
    train_loader = get_loader(train_data, args.batch, True, args.workers, random_affine if args.augment else None)
    val_loader = get_loader(val_data, args.batch)

    # ---- queries ----
    box = BlackBox(classifier)
    answer = classifier  # of the clean image, and on validation images
    if (args.zo_method == "guided" and not surrogates) or (zeroth_order and surrogates and args.zo_method != "guided"):
        raise ValueError("--zo_method guided and --surrogates go together; without ZO, surrogates take f's place")
    if zeroth_order:
        answer = box.query
        dimension = math.prod(front.autoencoder.latent_shape) if args.model_type == "AE_DS" else channels * size**2
        check_queries(args, dimension, len(train_data), device)

    # ---- training ----
    objective = losses.stability if args.objective == "stability" else losses.classification

    def loss_fn(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        noisy, sd = add_noise(images, noise_sd)
        denoised, z, decode = run_front(front, noisy, sd)
        model = surrogates[int(torch.randint(len(surrogates), ()))] if surrogates else classifier
        target = labels
        if args.objective == "stability":
            with torch.no_grad():
                target = answer(images) if zeroth_order else model(images)
        if zeroth_order:
            estimator = ESTIMATORS.get(args.zo_method) or guided(
                lambda z: gradient(lambda z: objective(model(decode(z)), target), z)
            )
            loss = surrogate_loss(
                z, lambda points, sample: objective(box.query(decode(points)), target[sample]),
                estimator, args.mu, args.q, args.zo_batch,
            )  # fmt: skip
        else:
            loss = objective(model(decode(z)), target)
        if args.mse_weight:
            loss = loss + args.mse_weight * losses.reconstruction(denoised, images)
        return loss

    def validate() -> dict[str, float]:
        found = validation.accuracy(lambda x, sd: answer(front(x, sd)), val_loader, device, noise_sd, answer)
        return found | ({"queries": box.queries} if zeroth_order else {})

    score = "val_agreement" if args.objective == "stability" else "val_accuracy"
    fixed = {"manifest": train_data.manifest.digest, "classifier_sha256": fingerprint(args.classifier),
             "surrogates_sha256": [fingerprint(path) for path in args.surrogates]}  # fmt: skip
    run = RunDirectory(args.outdir, {**vars(args), **fixed}, args.resume)
    if zeroth_order and run.history:
        box.queries = run.history[-1]["queries"]
    best = fit(front, loss_fn, validate, score, train_loader, run, args, device, describe,
               spent=lambda: args.query_budget is not None and box.queries >= args.query_budget)  # fmt: skip
    queries = f", {box.queries / len(train_data):.0f} queries per training image" if zeroth_order else ""
    print(f"accuracy on noisy validation images {best['val_accuracy']:.1%} (epoch {best['epoch']}){queries}: "
          f"{args.outdir}/best.pth.tar")  # fmt: skip


def load_surrogates(args: argparse.Namespace, made: dict, device: torch.device) -> list[torch.nn.Module]:
    """The classifiers of --surrogates, frozen. Raises ValueError if one takes other images, or knows other classes."""
    surrogates = []
    for path in args.surrogates:
        surrogate, other = load_model(path, "classifier", device)
        for name in ("channels", "num_classes"):
            if other["arch_kwargs"][name] != made["arch_kwargs"][name]:
                raise ValueError(f"--surrogates {path}: has {name} {other['arch_kwargs'][name]}, but the classifier "
                                 f"{made['arch_kwargs'][name]}")  # fmt: skip
        surrogates.append(frozen(surrogate))
    return surrogates


def check_queries(args: argparse.Namespace, dimension: int, images: int, device: torch.device) -> None:
    """Set the defaults of --q and --zo_batch. Raises ValueError if the estimate is impossible, or costs too much."""
    args.q = args.q or (dimension if args.zo_method.startswith("CGE") else min(192, dimension))
    args.zo_batch = args.zo_batch or (1024 if device.type == "cuda" else 64)
    if args.q > dimension and args.zo_method not in ("RGE", "RGE_antithetic"):
        raise ValueError(f"--q {args.q}: z has only {dimension} numbers, so --zo_method {args.zo_method} has no more")
    queries = queries_of(args.zo_method, args.q)
    if queries > 4096 and not args.force:
        raise ValueError(
            f"--zo_method {args.zo_method} over {args.q} of the {dimension} numbers of z takes {queries} queries per "
            f"image and step, {queries * images:,} per epoch; use AE_DS, a smaller --q, or --force"
        )


if __name__ == "__main__":
    cli.run(get_args_parser, main)
