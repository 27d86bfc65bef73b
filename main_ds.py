"""Train what stands in front of a frozen classifier end to end, by backpropagation or by queries alone.

    python main_ds.py --classifier runs/Phantom_MRI/classifier/best.pth.tar --noise_sd 0.25 --objective stability \\
        --mse_weight 10 --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --outdir runs/Phantom_MRI/stability

--model_type DS: a denoiser D (Salman et al. 2020); AE_DS: D, then an autoencoder (Zhang et al., ICLR 2022).
--objective stability: agree with the classifier's own clean answer (no labels needed); classification: with the label.
Either plus `mse_weight` times the reconstruction error of D, and with --consistency (Jeong and Shin 2020) what two
noisy copies of an image disagree about. `best` agrees most with its target on the noisy validation split; with
--consistency on most images in every draw.

    python main_ds.py --classifier … --optimization_method ZO --model_type AE_DS --pretrained_denoiser … \\
        --pretrained_encoder runs/Phantom_MRI/autoencoder/best.pth.tar --zo_method CGE --outdir runs/Phantom_MRI/zo

--optimization_method FO backpropagates through the classifier; ZO only queries what lies behind z, the denoised image
(DS) or the latent (AE_DS): the classifier, and the decoder. Queries are logged per epoch, those of validation included;
with --surrogates in the classifier's place those of validation are all.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from common import cli
from datasets import get_dataset, get_loader
from models import (
    BlackBox,
    Queried,
    autocast,
    fingerprint,
    frozen,
    load_front,
    load_surrogates,
    names,
    origins,
    prepare,
)
from models.flags import described_classifier, described_reconstructor
from training import flags, losses
from training.augmentation import random_affine
from training.engine import fit
from training.front import TRAIN_METHODS, choose_trained, run_front
from training.noise import add_noise, noise_range
from training.run_directory import RunDirectory
from training.tasks import load_task
from training.zeroth_order import ESTIMATORS, gradient, grey, guided, important, in_batches, surrogate_loss


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    model = parser.add_argument_group("model")
    cli.classifier_flags(model, required=False)
    cli.reconstructor_flags(model, required=False)
    model.add_argument(
        "--surrogates",
        type=Path,
        nargs="+",
        default=[],
        metavar="F",
        help="checkpoints to train against in its place, one per step at random",
    )
    model.add_argument("--model_type", choices=["DS", "AE_DS"], default="DS", help="without or with an autoencoder")
    model.add_argument("--pretrained_denoiser", type=Path, help="checkpoint to start from (default: from scratch)")
    model.add_argument("--pretrained_encoder", type=Path, help="an autoencoder's checkpoint, for AE_DS")
    model.add_argument("--pretrained_decoder", type=Path, help="another one (default: the encoder's)")
    model.add_argument("--arch", choices=names("denoiser"), help="of a denoiser from scratch (default: nafnet)")
    model.add_argument("--latent", type=cli.positive_int, help="numbers in a new autoencoder's latent (default: 576)")
    model.add_argument("--train_method", choices=TRAIN_METHODS, help="part: D; whole: D and E; whole_plus: D, E, Dec")
    objective = parser.add_argument_group("objective")
    objective.add_argument(
        "--train_objective",
        choices=["classification", "reconstruction"],
        default="classification",
        help="what f does: classify images, or reconstruct them from measurements",
    )
    objective.add_argument(
        "--objective",
        choices=["stability", "classification"],
        default="stability",
        help="agree with f's own clean answer, or with the label (the true image)",
    )
    objective.add_argument("--mse_weight", type=cli.non_negative_float, default=0.0, help="of the reconstruction error")
    objective.add_argument(
        "--consistency",
        type=cli.non_negative_float,
        default=0.0,
        metavar="LAMBDA",
        help="weight of the disagreement between two noisy copies of an image",
    )
    flags.add_noise_flag(objective)
    flags.add_query_flags(parser)
    flags.add_training_flags(
        parser,
        lr="{FO:g}; with --optimization_method ZO {ZO:g}".format(**flags.RATES),
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
    if args.consistency and (zeroth_order or args.train_objective == "reconstruction"):
        raise ValueError("--consistency: only of a classifier's answers, and with --optimization_method FO")
    if args.surrogates and args.train_objective == "reconstruction":
        raise ValueError("--surrogates: only of a classifier, not with --train_objective reconstruction")
    flags.check_method(args)
    device = flags.set_up(args)

    # ---- models ----
    described = described_classifier(args) if args.reconstructor is None else described_reconstructor(args)
    network, made, task = load_task(args, device, described)
    surrogates = load_surrogates(args.surrogates, made, device)
    if isinstance(network, Queried) and not (zeroth_order or surrogates):
        raise ValueError(f"{network.name}: gives no gradients; use --optimization_method ZO or --surrogates")
    network = frozen(network)
    size, channels = made["image_size"], made["arch_kwargs"]["channels"]
    front, describe = load_front(
        channels,
        size,
        device,
        args.pretrained_denoiser,
        args.pretrained_encoder,
        args.pretrained_decoder,
        args.model_type,
        args.arch or "nafnet",
        args.latent or 576,
    )
    parts = describe["arch_kwargs"] if describe["arch"] == "ae_ds" else {"denoiser": describe}
    flags.settle(args, args.pretrained_denoiser, {"arch": parts["denoiser"]["arch"]})
    latent = parts.get("autoencoder", describe)["arch_kwargs"].get("latent", args.latent or 576)
    holder = args.pretrained_encoder or args.pretrained_decoder or args.pretrained_denoiser
    flags.settle(args, holder, {"latent": latent})
    front = prepare(front, device)
    choose_trained(front, args.train_method)
    args.dataset = args.dataset or made["dataset"]

    # ---- data ----
    trained = origins(
        (
            args.classifier,
            args.reconstructor,
            *args.surrogates,
            args.pretrained_denoiser,
            args.pretrained_encoder,
            args.pretrained_decoder,
        )
    )
    train_data, val_data = (
        get_dataset(args.dataset, split, size, args.protocol, channels, args.data_dir, trained)
        for split in ("train", "val")
    )
    train_data.info.check_classes(args.reconstructor or args.classifier, made.get("info") if args.classifier else None)
    describe |= {"image_size": size, **train_data.manifest.described()}
    pool = args.batch * (args.zo_pool or 1)
    train_loader = get_loader(train_data, pool, True, args.workers)
    val_loader = get_loader(val_data, args.batch)

    # ---- queries ----
    queried = zeroth_order or bool(surrogates)  # in training, or in validation alone
    box = BlackBox(network, amp=not zeroth_order or args.zo_precision == "bfloat16")
    answer = box.query if queried else network  # to the clean image, and to validation images
    validation = len(val_data) * task.queries
    if zeroth_order:
        dimension = math.prod(front.autoencoder.latent_shape) if args.model_type == "AE_DS" else channels * size**2
        dimension = size**2 if args.zo_grey else dimension
        estimated = flags.check_queries(args, dimension, size, len(train_data), device)
        torch.backends.cudnn.allow_tf32 = args.zo_precision == "tf32"

        def step(images: int) -> int:
            return images * (task.stability + (pool > args.batch)) + min(images, args.batch) * estimated

        first, (steps, rest) = min(pool, len(train_data)), divmod(len(train_data), pool)
        flags.fit_epochs(args, step(first) + validation, steps * step(pool) + step(rest) + validation)

    def reserve(images: int) -> bool:
        if not zeroth_order:
            return True
        spent = box.queries + step(images) + validation
        if args.query_budget is not None and spent > args.query_budget:
            return False
        run.note_queries(spent)  # at most: should this process be killed, the budget holds
        return True

    # ---- training ----
    copies = 2 if args.consistency else 1

    def asked(decode: Callable, target: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        def loss(points: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
            with autocast(device, args.zo_precision == "bfloat16"):
                return task.loss(box.query(decode(points)), target[sample])

        return loss

    def loss_fn(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        clean = task.measure(images)
        noisy, sd = add_noise(torch.cat([clean] * copies), noise_sd)
        model = surrogates[int(torch.randint(len(surrogates), ()))] if surrogates else network
        target = task.truth(images, labels)
        if task.stability:
            with torch.no_grad():
                target = answer(clean) if zeroth_order else model(clean)
        weights = 1.0
        if pool > args.batch:
            with torch.no_grad():
                _, z, decode = run_front(front, noisy, sd)
            each = in_batches(asked(decode, target), args.zo_batch)(z.float().unsqueeze(1)).squeeze(1)
            chosen, weights = important(each, min(args.batch, len(images)))
            clean, noisy, sd, target = (of_pool[chosen] for of_pool in (clean, noisy, sd, target))
        denoised, z, decode = run_front(front, noisy, sd)
        if zeroth_order:
            estimator = ESTIMATORS.get(args.zo_method) or guided(
                lambda z: gradient(lambda z: task.loss(model(decode(z)), target), z)
            )
            estimator = grey(estimator) if args.zo_grey else estimator
            loss = surrogate_loss(z, asked(decode, target), estimator, args.mu, args.q, args.zo_batch)
        else:
            output = model(decode(z))
            loss = task.loss(output, torch.cat([target] * copies))
        if args.consistency:
            loss = loss + losses.consistency(output.unflatten(0, (copies, -1)), args.consistency).repeat(copies)
        if args.mse_weight:
            loss = loss + args.mse_weight * losses.reconstruction(denoised, torch.cat([clean] * copies))
        return weights * loss

    def validate() -> dict[str, float]:
        found = task.validate(lambda x, sd: answer(front(x, sd)), answer, val_loader, device, noise_sd)
        return found | ({"queries": box.queries} if queried else {})

    fixed = {
        "manifest": train_data.manifest.digest,
        "classifier_sha256": fingerprint(args.reconstructor or args.classifier),
        "surrogates_sha256": [fingerprint(path) for path in args.surrogates],
    }
    run = RunDirectory(args.outdir, {**vars(args), **fixed}, args.resume)
    box.queries = run.queries
    score = "val_unanimous" if args.consistency else task.score
    try:
        best = fit(
            front,
            loss_fn,
            validate,
            score,
            train_loader,
            run,
            args,
            device,
            describe,
            reserve,
            augment=random_affine if args.augment else None,
        )
    finally:
        if queried:
            run.note_queries(box.queries)
    queries = f", {box.queries / len(train_data):.0f} queries per training image" if queried else ""
    reached = (
        f"accuracy on noisy validation images {best['val_accuracy']:.1%}"
        if "val_accuracy" in best
        else (f"PSNR of reconstructions from noisy measurements {best['val_psnr']:.2f} dB")
    )
    print(f"{reached} (epoch {best['epoch']}){queries}: {args.outdir}/best.pth.tar")


if __name__ == "__main__":
    cli.run(get_args_parser, main)
