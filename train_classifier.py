"""Train the base classifier, or with --noise_sd > 0 the Gaussian-augmented one (Cohen et al. 2019), the white-box
reference that denoised smoothing is compared with.

    python train_classifier.py --dataset Phantom_MRI --outdir runs/Phantom_MRI/classifier
"""

from __future__ import annotations

from common.script import start

import argparse

from common import cli
from datasets import get_dataset, get_loader
from imaging.catalogue import dataset_info
from models import build, prepare
from models.classifiers import load_weights
from training import flags, losses, validation
from training.augmentation import random_changes
from training.engine import fit
from training.noise import add_noise
from training.run_directory import RunDirectory


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    model = parser.add_argument_group("model")
    model.add_argument("--arch", default="resnet18", help="any classifier of torchvision")
    model.add_argument(
        "--image_size", type=cli.positive_int, help="input size in pixels (default: 64; CIFAR10 32, MNIST 28)"
    )
    model.add_argument("--channels", type=int, choices=[1, 3], default=3, help="3: RGB, as published; 1: grey")
    model.add_argument("--weights", help="local file of torchvision weights to start from; nothing is downloaded")
    model.add_argument(
        "--noise_sd",
        type=cli.non_negative_float,
        default=0.0,
        help="standard deviation of Gaussian noise on training images, [0, 1] scale",
    )
    model.add_argument("--label_smoothing", type=cli.share, default=0.1, help="label smoothing of the cross-entropy")
    model.add_argument("--mixup", type=cli.non_negative_float, default=0.0, help="strength of mixup; 0: none")
    flags.add_training_flags(
        parser, lr=1e-3, epochs=40, weight_decay=0.05, dataset_help="name of a prepared data set (default: Phantom_MRI)"
    )
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    device = flags.set_up(args)
    args.dataset = args.dataset or "Phantom_MRI"
    args.image_size = args.image_size or dataset_info(args.dataset, args.data_dir).image_size

    # ---- data ----
    data = {
        split: get_dataset(args.dataset, split, args.image_size, args.protocol, args.channels, args.data_dir)
        for split in ("train", "val")
    }
    train_loader = get_loader(data["train"], args.batch, True, args.workers)
    val_loader = get_loader(data["val"], args.batch)
    manifest = data["train"].manifest
    info = manifest.info

    # ---- model ----
    arch_kwargs = {
        "num_classes": len(info.classes),
        "image_size": args.image_size,
        "channels": args.channels,
        "mean": [info.mean],
        "std": [info.std],
    }
    net = build(args.arch, **arch_kwargs)
    if args.weights:
        fresh = load_weights(net, args.weights)
        print(f"--weights {args.weights}: {len(fresh)} tensors did not fit and start fresh: {', '.join(fresh[:4])} …")
    classifier = prepare(net, device)
    noise_sd = (args.noise_sd, args.noise_sd)

    # ---- training ----
    def loss_fn(images, labels):
        def under_noise(x):  # fresh noise on blended images, not blended noise
            return classifier(add_noise(x, noise_sd)[0])

        return losses.mixup(under_noise, images, labels, args.mixup, label_smoothing=args.label_smoothing)

    def validate():
        return validation.accuracy(lambda x, _: classifier(x), val_loader, device, noise_sd)

    describe = {"arch": args.arch, "arch_kwargs": arch_kwargs, "image_size": args.image_size, **manifest.described()}
    with RunDirectory(args.outdir, {**vars(args), "manifest": manifest.digest}, args.resume) as run:
        best = fit(
            classifier,
            loss_fn,
            validate,
            "val_accuracy",
            train_loader,
            run,
            args,
            device,
            describe,
            augment=random_changes if args.augment else None,
        )
    noise = f" under noise {args.noise_sd}" if args.noise_sd else ""
    print(f"validation accuracy{noise} {best['val_accuracy']:.1%} (epoch {best['epoch']}): {args.outdir}/best.pth.tar")


if __name__ == "__main__":
    start(get_args_parser, main)
