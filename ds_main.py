"""Train a denoiser by pure reconstruction, `‖D(x+n) − x‖²`, an autoencoder, `‖Dec(E(x)) − x‖²`, or a network that
reconstructs images from incomplete measurements m, `‖R(m(x)) − x‖²`; test a denoiser; show what it does.

python ds_main.py --dataset Phantom_MRI --noise_sd 0.1 1.0 --outdir runs/Phantom_MRI/mse
python ds_main.py --model autoencoder --latent 576 --outdir runs/Phantom_MRI/autoencoder
python ds_main.py --model reconstructor --measurement undersampled --acceleration 4 --outdir runs/Phantom_MRI/R
python ds_main.py --mode test --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --noise_sd 0.25
python ds_main.py --mode inference --pretrained_denoiser … --noise_sd 0.25 0.5 --outdir runs/Phantom_MRI/grids
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from common import cli, files
from datasets import get_dataset, get_loader
from imaging.catalogue import dataset_info
from models import DEFAULT_DENOISER, autocast, build, load_model, names, origins, prepare, takes
from models.measurements import MEASUREMENTS, measurement
from training import flags, losses, validation
from training.augmentation import random_affine
from training.engine import fit
from training.noise import add_fixed_noise, add_noise, noise_range
from training.run_directory import RunDirectory

# New networks, unless flags say otherwise.
NEW = {"model": "denoiser", "channels": 3, "latent": 576, "measurement": "undersampled", "acceleration": 4.0}
ARCHS = {"denoiser": DEFAULT_DENOISER, "reconstructor": "nafnet"}
# Of which kinds of network a flag says something.
ONLY_OF = {
    "arch": ("denoiser", "reconstructor"),
    "latent": ("autoencoder",),
    "measurement": ("reconstructor",),
    "acceleration": ("reconstructor",),
}
# Peak learning rates: of denoisers measured (results/benchmarks/denoisers.md), and at theirs a reconstructor diverges
# (Brain Tumor MRI, epoch 7).
RATES = {"nafnet4": 3e-3, "denoiser": 1.5e-3, "autoencoder": 1.5e-3, "reconstructor": 5e-4}


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--mode",
        choices=["train", "test", "inference"],
        default="train",
        help="train; test: PSNR on --split; inference: pictures of clean, noisy and denoised images",
    )
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model",
        choices=["denoiser", "autoencoder", "reconstructor"],
        help="what to train (default: denoiser, or what the checkpoint holds)",
    )
    model.add_argument(
        "--arch",
        choices=names("denoiser"),
        help="a new denoiser or reconstructor (default: {denoiser}; of a reconstructor {reconstructor})".format(
            **ARCHS
        ),
    )
    model.add_argument(
        "--measurement",
        choices=MEASUREMENTS,
        help="that a new reconstructor is given: lines of k-space (default: undersampled), or random projections",
    )
    model.add_argument("--acceleration", type=cli.positive_float, help="of it: numbers per measured one (default: 4)")
    model.add_argument("--latent", type=cli.positive_int, help="numbers in a new autoencoder's latent (default: 576)")
    model.add_argument("--image_size", type=cli.positive_int, help="side in pixels (default: 64; CIFAR10 32, MNIST 28)")
    model.add_argument("--channels", type=int, choices=[1, 3], help="3: RGB, as published (default); 1: grey")
    model.add_argument(
        "--pretrained_denoiser", "--pretrained_autoencoder", type=Path, help="start from (or test) this checkpoint"
    )
    flags.add_noise_flag(model)
    flags.add_training_flags(
        parser,
        lr="{nafnet4:g} of nafnet4; others {denoiser:g}, a reconstructor {reconstructor:g}".format(**RATES),
        epochs=40,
        weight_decay=1e-4,
        dataset_help="name of a prepared data set (default: the checkpoint's, else Phantom_MRI)",
        outdir_required=False,
    )
    parser.add_argument("--split", choices=["train", "val"], default="val", help="of test and inference")
    parser.add_argument("--images", type=cli.positive_int, default=8, help="of inference: columns of each grid")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    {"train": train, "test": test, "inference": inference}[args.mode](args)


def train(args: argparse.Namespace) -> None:
    """Train by reconstruction; `best` has the highest PSNR on the validation split."""
    if args.outdir is None:
        raise ValueError("--mode train needs --outdir")
    device = flags.set_up(args)

    # ---- model ----
    if args.pretrained_denoiser is not None:
        denoiser, start = _load(args, device)
        describe = {key: start[key] for key in ("arch", "arch_kwargs", "image_size", "measurement") if key in start}
    else:
        args.model = args.model or NEW["model"]
        for name, kinds in ONLY_OF.items():
            if getattr(args, name) is not None and args.model not in kinds:
                raise ValueError(f"--{name}: says nothing of --model {args.model}, only of {' and '.join(kinds)}")
        for name, value in NEW.items():
            setattr(args, name, getattr(args, name) or value)
        args.arch = args.arch or ARCHS.get(args.model)
        start = {"dataset": "Phantom_MRI"}
        args.image_size = args.image_size or dataset_info(args.dataset or start["dataset"], args.data_dir).image_size
        describe = {"arch": args.arch, "arch_kwargs": {"channels": args.channels}, "image_size": args.image_size}
        if args.model == "autoencoder":
            describe["arch"] = "autoencoder"
            describe["arch_kwargs"] |= {"image_size": args.image_size, "latent": args.latent}
        if args.model == "reconstructor":
            describe["measurement"] = {"kind": args.measurement, "acceleration": args.acceleration, "seed": args.seed}
        denoiser = prepare(build(describe["arch"], **describe["arch_kwargs"]), device)
    if args.model != "denoiser":
        if args.noise_sd != [flags.NOISE_SD]:
            raise ValueError(f"--noise_sd: is of denoisers; --model {args.model} is trained without")
        args.noise_sd = [0.0]
    of_arch = args.model == "denoiser" and args.arch in RATES
    args.lr = args.lr or RATES[args.arch if of_arch else args.model]
    noise_sd = noise_range(args.noise_sd)
    args.dataset = args.dataset or start["dataset"]

    # ---- data ----
    train_data, val_data = (_dataset(args, split, describe) for split in ("train", "val"))
    describe |= train_data.manifest.described()
    measure = _measure(describe)
    train_loader = get_loader(train_data, args.batch, True, args.workers)
    val_loader = get_loader(val_data, args.batch)

    # ---- training ----
    def loss_fn(images, labels):
        noisy, sd = add_noise(measure(images), noise_sd)
        return losses.reconstruction(denoiser(noisy, sd), images)

    def validate():
        return {"val_psnr": validation.psnr(denoiser, val_loader, device, noise_sd, measure)}

    run = RunDirectory(args.outdir, {**vars(args), "manifest": train_data.manifest.digest}, args.resume)
    best = fit(
        denoiser,
        loss_fn,
        validate,
        "val_psnr",
        train_loader,
        run,
        args,
        device,
        describe,
        augment=random_affine if args.augment else None,
    )
    noise = "–".join(f"{value:g}" for value in dict.fromkeys(noise_sd))
    psnr = f"{best['val_psnr']:.2f} dB"
    at = f"at noise {noise}" if noise_sd[1] else "of clean images"
    at = "from measurements without noise" if args.model == "reconstructor" else at
    print(f"validation PSNR {psnr} {at} (epoch {best['epoch']}): {args.outdir}/best.pth.tar")


def test(args: argparse.Namespace) -> None:
    """PSNR of noisy and denoised images at every --noise_sd."""
    device = flags.set_up(args)
    denoiser, described = _load(args, device)
    measure = _measure(described)
    loader = get_loader(_dataset(args, args.split, described), args.batch)
    for value in args.noise_sd:
        with torch.inference_mode(), autocast(device, args.amp):
            noisy = validation.psnr(lambda x, _: x, loader, device, (value, value), measure)
            denoised = validation.psnr(denoiser, loader, device, (value, value), measure)
        print(f"noise_sd {value:g}: PSNR noisy {noisy:.2f} dB, denoised {denoised:.2f} dB ({args.split} split)")


def inference(args: argparse.Namespace) -> None:
    """Write one picture per --noise_sd: a row of clean images, below them noisy, below them denoised ones."""
    if args.outdir is None:
        raise ValueError("--mode inference needs --outdir")
    device = flags.set_up(args)
    denoiser, described = _load(args, device)
    data, measure = _dataset(args, args.split, described), _measure(described)
    chosen = torch.linspace(0, len(data) - 1, min(args.images, len(data))).long().tolist()
    clean = torch.stack([data[i][0] for i in chosen]).to(device)
    for value in args.noise_sd:
        noisy, sd = add_fixed_noise(measure(clean), (value, value), seed=args.seed)
        with torch.inference_mode(), autocast(device, args.amp):
            denoised = denoiser(noisy, sd).float()
        columns = torch.cat([clean, noisy, denoised], dim=2).clamp(0, 1)  # [B, C, 3H, W]
        grid = torch.cat(list(columns), dim=2).expand(3, -1, -1)
        picture = Image.fromarray((grid * 255).round().byte().permute(1, 2, 0).cpu().numpy())
        path = args.outdir / f"noise_{value:g}.png"
        with files.replacing(path) as temporary:
            (marked_synthetic(picture) if data.info.synthetic else picture).save(temporary)
        print(f"noise_sd {value:g}: clean, noisy, denoised ({args.split} split): {path}")


def marked_synthetic(picture: Image.Image) -> Image.Image:
    """The picture below a line that says what it shows."""
    marked = Image.new("RGB", (picture.width, picture.height + 14), "white")
    marked.paste(picture, (0, 14))
    ImageDraw.Draw(marked).text((2, 1), "SYNTHETIC", fill="black")
    return marked


def _load(args: argparse.Namespace, device: torch.device) -> tuple[torch.nn.Module, dict]:
    """The network of --pretrained_denoiser and its checkpoint. Raises ValueError if flags say that it is another."""
    if args.pretrained_denoiser is None:
        raise ValueError(f"--mode {args.mode} needs --pretrained_denoiser")
    denoiser, described = load_model(args.pretrained_denoiser, "denoiser", device)
    measured = described.get("measurement")
    kind = "autoencoder" if described["arch"] == "autoencoder" else "reconstructor" if measured else "denoiser"
    is_like = {
        "model": kind,
        "arch": described["arch"],
        "image_size": described["image_size"],
        "channels": takes(described)[0],
    }
    if measured:
        is_like |= {"measurement": measured["kind"], "acceleration": measured["acceleration"]}
    flags.settle(args, args.pretrained_denoiser, is_like)
    return denoiser, described


def _measure(described: dict) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a reconstructor is given of an image; for the others that is the image."""
    if "measurement" not in described:
        return lambda images: images
    channels, size = takes(described)[0], described["image_size"]
    return measurement(channels=channels, image_size=size, **described["measurement"])


def _dataset(args: argparse.Namespace, split: str, described: dict):
    """The split in the size and with the channels that the denoiser takes."""
    channels, _ = takes(described)
    name = args.dataset or described["dataset"]
    trained = origins((args.pretrained_denoiser,))
    return get_dataset(name, split, described["image_size"], args.protocol, channels, args.data_dir, trained)


if __name__ == "__main__":
    cli.run(get_args_parser, main)
