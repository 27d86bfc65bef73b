"""Train a denoiser by reconstruction, `‖D(x+n) − x‖²`; test it, or show what it does.

    python ds_main.py --dataset Phantom_MRI --noise_sd 0.1 1.0 --outdir runs/Phantom_MRI/mse
    python ds_main.py --mode test --pretrained_denoiser runs/Phantom_MRI/mse/best.pth.tar --noise_sd 0.25
    python ds_main.py --mode inference --pretrained_denoiser … --noise_sd 0.25 0.5 --outdir runs/Phantom_MRI/grids

It also trains an autoencoder, `‖Dec(E(x)) − x‖²`, and a reconstructor, which reconstructs images from incomplete
measurements m(x): `‖R(m(x)) − x‖²`.

    python ds_main.py --model autoencoder --latent 576 --outdir runs/Phantom_MRI/autoencoder
    python ds_main.py --model reconstructor --measurement undersampled --acceleration 4 --outdir runs/Phantom_MRI/R
"""

from __future__ import annotations

from common.script import start

import argparse
from collections.abc import Callable

import torch
from PIL import Image, ImageDraw

from common import cli, files
from datasets import get_dataset, get_loader
from imaging.catalogue import dataset_info
from models import autocast, build, load_model, origins, prepare, takes
from models.measurements import measurement
from training import flags, losses, network_flags, validation
from training.augmentation import random_affine
from training.engine import fit
from training.noise import add_fixed_noise, add_noise
from training.run_directory import RunDirectory


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "--mode",
        choices=["train", "test", "inference"],
        default="train",
        help="train; test: PSNR on --split; inference: pictures of clean, noisy and denoised images",
    )
    model = parser.add_argument_group("model")
    network_flags.add_network_flags(model)
    flags.add_noise_flag(model)
    flags.add_training_flags(
        parser,
        lr="{nafnet4:g} of nafnet4, {denoiser:g} of other denoisers and autoencoders, {reconstructor:g} of "
        "reconstructors".format(**network_flags.RATES),
        epochs=40,
        weight_decay=1e-4,
        dataset_help="name of a prepared data set (default: the checkpoint's, else Phantom_MRI)",
        outdir_required=False,
    )
    parser.add_argument(
        "--split", choices=["train", "val"], default="val", help="split to use in --mode test and inference"
    )
    parser.add_argument(
        "--images", type=cli.positive_int, default=8, help="images per picture in --mode inference, one column each"
    )
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
        start = {"dataset": "Phantom_MRI"}
        network_flags.set_defaults(args)
        args.image_size = args.image_size or dataset_info(args.dataset or start["dataset"], args.data_dir).image_size
        describe = network_flags.description(args)
        denoiser = prepare(build(describe["arch"], **describe["arch_kwargs"]), device)
    noise_sd = network_flags.settle_noise(args)
    args.lr = args.lr or network_flags.rate(args)
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

    with RunDirectory(args.outdir, {**vars(args), "manifest": train_data.manifest.digest}, args.resume) as run:
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
    at = _noise_in_words(args.model, noise_sd)
    print(f"validation PSNR {best['val_psnr']:.2f} dB {at} (epoch {best['epoch']}): {args.outdir}/best.pth.tar")


def _noise_in_words(model: str, noise_sd: tuple[float, float]) -> str:
    if model == "reconstructor":
        return "from measurements without noise"
    return (
        "at noise " + "–".join(f"{value:g}" for value in dict.fromkeys(noise_sd)) if noise_sd[1] else "of clean images"
    )


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
    """The picture with the word SYNTHETIC above it."""
    marked = Image.new("RGB", (picture.width, picture.height + 14), "white")
    marked.paste(picture, (0, 14))
    ImageDraw.Draw(marked).text((2, 1), "SYNTHETIC", fill="black")
    return marked


def _load(args: argparse.Namespace, device: torch.device) -> tuple[torch.nn.Module, dict]:
    """The network of --pretrained_denoiser and its checkpoint. Raises ValueError if a flag contradicts it."""
    if args.pretrained_denoiser is None:
        raise ValueError(f"--mode {args.mode} needs --pretrained_denoiser")
    denoiser, described = load_model(args.pretrained_denoiser, "denoiser", device, args.denoiser_scale)
    described = _completed(args, described)
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


def _completed(args: argparse.Namespace, described: dict) -> dict:
    """The description of a network with what a denoiser from elsewhere does not say of its images, by the flags."""
    name = described.get("dataset") or args.dataset or "Phantom_MRI"
    size = described.get("image_size") or args.image_size or dataset_info(name, args.data_dir).image_size
    kwargs = {**described["arch_kwargs"], "channels": takes(described)[0] or args.channels or 3}
    is_whole = described["arch"] in ("ae_ds", "pair")  # whose channels its parts say
    return described | {"dataset": name, "image_size": size} | ({} if is_whole else {"arch_kwargs": kwargs})


def _measure(described: dict) -> Callable[[torch.Tensor], torch.Tensor]:
    """The measurements that a reconstructor takes of an image; for other networks the image itself."""
    if "measurement" not in described:
        return lambda images: images
    return measurement(channels=_channels(described), image_size=described["image_size"], **described["measurement"])


def _dataset(args: argparse.Namespace, split: str, described: dict):
    """The split, with the input size and channels of the denoiser."""
    name = args.dataset or described["dataset"]
    trained = origins((args.pretrained_denoiser,))
    size = described["image_size"]
    return get_dataset(name, split, size, args.protocol, _channels(described), args.data_dir, trained)


def _channels(described: dict) -> int:
    """The channels of the images that a network takes; of a denoiser from elsewhere as they were `_completed`."""
    channels = takes(described)[0]
    assert channels is not None
    return channels


if __name__ == "__main__":
    start(get_args_parser, main)
