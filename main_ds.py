"""Train a denoiser (and an autoencoder) in front of a frozen classifier, end to end, by gradients or by queries alone.

    python main_ds.py --classifier runs/Phantom_MRI/classifier/best.pth.tar --noise_sd 0.25 --objective stability \\
        --mse_weight 10 --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --outdir runs/Phantom_MRI/stability

--model_type DS: a denoiser D (Salman et al. 2020); AE_DS: D, then an autoencoder (Zhang et al., ICLR 2022).
--objective stability: the target is the classifier's own answer to the clean image, and no labels are needed;
classification: the target is the label. --mse_weight adds the reconstruction error of D to the loss, --consistency the
disagreement between two noisy copies of an image (Jeong and Shin 2020). `best` is the epoch that agrees most often with
the target on the noisy validation split; with --consistency, the one that agrees in every draw on most images.

    python main_ds.py --classifier … --optimization_method ZO --model_type AE_DS --pretrained_denoiser … \\
        --pretrained_encoder runs/Phantom_MRI/autoencoder/best.pth.tar --zo_method CGE --outdir runs/Phantom_MRI/zo

--optimization_method FO backpropagates through the classifier. ZO only queries what lies behind z: z is the denoised
image (DS) or the latent (AE_DS), behind it are the classifier and, for AE_DS, the decoder. The log holds the queries so
far after each epoch, those of validation included. If --surrogates replace the classifier, only validation queries it.
"""

from __future__ import annotations

from common.script import start

import argparse
from typing import Any

import torch

from common import cli
from datasets import ImageDataset, get_dataset, get_loader
from models import DEFAULT_DENOISER, Queried, fingerprint, frozen, load_front, load_surrogates, origins, prepare
from models.flags import announce, described_classifier, described_reconstructor, say_order
from training import flags
from training.augmentation import random_affine
from training.end_to_end import EndToEnd
from training.engine import fit
from training.front import choose_trained
from training.run_directory import RunDirectory
from training.tasks import load_task


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    model = parser.add_argument_group("model")
    cli.classifier_flags(model, required=False, arch=())
    cli.reconstructor_flags(model, required=False)
    flags.add_front_flags(model)
    objective = parser.add_argument_group("objective")
    flags.add_objective_flags(objective)
    flags.add_noise_flag(objective)
    flags.add_query_flags(parser)
    flags.add_training_flags(
        parser,
        lr="{FO:g}; with --optimization_method ZO {ZO:g}".format(**flags.RATES),
        epochs=40,
        weight_decay=1e-4,
        dataset_help="name of a prepared data set (default: the one that the network was trained on)",
    )
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    args.train_method = args.train_method or ("whole" if args.model_type == "AE_DS" else "part")
    flags.settle_arch(args)
    flags.check_objective(args)
    flags.check_method(args)
    device = flags.set_up(args)

    # ---- models ----
    described = described_classifier(args) if args.reconstructor is None else described_reconstructor(args)
    network, made, task = load_task(args, device, described)
    announce(args.classifier, made.get("kind"))
    surrogates = load_surrogates(args.surrogates, made, device)
    if isinstance(network, Queried) and not (args.optimization_method == "ZO" or surrogates):
        raise ValueError(f"{network.name}: gives no gradients; use --optimization_method ZO or --surrogates")
    network = frozen(network)
    size, channels = made["image_size"], made["arch_kwargs"]["channels"]
    front, describe = load_trained(args, channels, size, device)

    # ---- data ----
    args.dataset = args.dataset or made["dataset"]
    train_data, val_data = load_data(args, made)
    if args.classifier:
        say_order(args.classifier, made.get("info") or made.get("outputs"), train_data.info)
    describe |= {"image_size": size, **train_data.manifest.described()}

    # ---- loss, queries, validation ----
    training = EndToEnd(args, task, front, network, surrogates, device)
    training.count_queries(channels, size, len(train_data), len(val_data))
    train_loader = get_loader(train_data, training.pool, True, args.workers)
    val_loader = get_loader(val_data, args.batch)

    # ---- the run ----
    with RunDirectory(args.outdir, {**vars(args), **digests(args, made, train_data)}, args.resume) as run:
        training.box.queries = run.queries
        try:
            best = fit(
                front,
                training.loss,
                lambda: training.validate(val_loader),
                training.score,
                train_loader,
                run,
                args,
                device,
                describe,
                reserve=lambda images: training.reserve(images, run),
                augment=random_affine if args.augment else None,
            )
        finally:
            if training.queried:
                run.note_queries(training.box.queries)
    queries = f", {training.box.queries / len(train_data):.0f} queries per training image" if training.queried else ""
    print(f"{reached(best)} (epoch {best['epoch']}){queries}: {args.outdir}/best.pth.tar")


def digests(args: argparse.Namespace, made: dict[str, Any], data: ImageDataset) -> dict[str, Any]:
    """Of everything that a run must not exchange when it resumes."""
    weights = made.get("weights_sha256")
    return {
        "manifest": data.manifest.digest,
        "classifier_sha256": fingerprint(args.reconstructor or args.classifier),
        **({"classifier_weights_sha256": weights} if weights else {}),
        "surrogates_sha256": [fingerprint(path) for path in args.surrogates],
    }


def load_trained(
    args: argparse.Namespace, channels: int, size: int, device: torch.device
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """What is trained, from checkpoints or new, and its description; --arch and --latent are set to what it is."""
    paths = (args.pretrained_denoiser, args.pretrained_encoder, args.pretrained_decoder)
    arch, latent = args.arch or DEFAULT_DENOISER, args.latent or 576
    front, describe = load_front(channels, size, device, *paths, args.model_type, arch, latent, args.denoiser_scale)
    parts = describe["arch_kwargs"] if describe["arch"] == "ae_ds" else {"denoiser": describe}
    flags.settle(args, args.pretrained_denoiser, {"arch": parts["denoiser"]["arch"]})
    latent = parts.get("autoencoder", describe)["arch_kwargs"].get("latent", latent)
    holder = args.pretrained_encoder or args.pretrained_decoder or args.pretrained_denoiser
    flags.settle(args, holder, {"latent": latent})
    front = prepare(front, device)
    choose_trained(front, args.train_method)
    return front, describe


def load_data(args: argparse.Namespace, made: dict[str, Any]) -> list[ImageDataset]:
    """The training and the validation images, as the network takes them."""
    paths = (args.pretrained_denoiser, args.pretrained_encoder, args.pretrained_decoder)
    trained = origins((args.classifier, args.reconstructor, *args.surrogates, *paths))
    size, channels = made["image_size"], made["arch_kwargs"]["channels"]
    data = [
        get_dataset(args.dataset, split, size, args.protocol, channels, args.data_dir, trained)
        for split in ("train", "val")
    ]
    told = made.get("info") if args.classifier else None
    data[0].info.check_classes(args.reconstructor or args.classifier, told)
    return data


def reached(best: dict[str, float]) -> str:
    """What the best epoch reached, in words."""
    if "val_accuracy" in best:
        return f"accuracy on noisy validation images {best['val_accuracy']:.1%}"
    return f"PSNR of reconstructions from noisy measurements {best['val_psnr']:.2f} dB"


if __name__ == "__main__":
    start(get_args_parser, main)
