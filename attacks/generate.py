"""Attack a pipeline and save the attacked images losslessly, with the outcome of each.

    python attacks/generate.py --classifier runs/Phantom_MRI/classifier/best.pth.tar --attack FGSM PGD DDN \\
        --split train val test
    python attacks/generate.py --classifier … --pretrained_denoiser … --target smoothed --noise_sd 0.25 --attack PGD \\
        --norm L2 --eps 0.5 --suffix _smoothed

The images are Dataset/<name>/AT_<ATTACK>/<label>/<split>_<idx>.png (AT_<ATTACK>_<NORM> if the norm is not the attack's
first). Beside them, manifest.csv lists source, label, predictions and success before and after rounding to 8 bits, L2
and L∞ of the saved perturbation on the [0, 1] scale, queries, seconds. An attack succeeds if it turns a right answer
into a wrong class; failed attempts are saved too, with success 0. The budget holds for the saved image. After an
interruption, the same command resumes.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a file: the project's root is where its packages lie
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common.script import start

import argparse
import dataclasses
import re
import shlex
import time

import torch
from tqdm import tqdm

from attacks import ATTACKS, How, labels_only, run_attack
from attacks.budget import to_8bit
from attacks.flags import SMOOTHED, add_attack_flags, planned, settle_smoothing
from attacks.folder import AttackedFolder, open_split, read_attacked, starting_images
from attacks.randomness import image_generator
from attacks.targets import Target, make_target
from common import cli
from datasets import SPLITS, ImageDataset, Manifest, read_manifest
from models import Pipeline, QueriedClassifier, fingerprint, hardware, select_device
from models.flags import fixed_by, open_pipeline, say_order


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags(split=False)
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["test"], help="splits to attack")
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="attack only every SKIP-th image")
    parser.add_argument(
        "--noise_sd",
        type=cli.non_negative_float,
        default=0.25,
        help="noise level that the denoiser is told, on the [0, 1] scale; sigma of --target smoothed",
    )
    add_attack_flags(parser.add_argument_group("attack"))
    parser.add_argument(
        "--suffix",
        type=suffix,
        default="",
        help="end of the folder's name, AT_<ATTACK><suffix>; it keeps the sets of several pipelines apart",
    )
    parser.add_argument("--overwrite", action="store_true", help="delete a set that was made with other settings")
    parser.add_argument("--batch", type=cli.positive_int, default=64, help="images per forward pass")
    parser.add_common_flags()
    parser.set_defaults(amp=False)  # gradients and distances to the boundary are finer than bfloat16
    return parser


def suffix(text: str) -> str:
    """Part of a folder's name, not a path."""
    if not re.fullmatch(r"[\w.+-]*", text):
        raise argparse.ArgumentTypeError(f"must be letters, digits, _ . + -, got {text!r}")
    return text


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    plans = planned(args)

    # ---- what is attacked, and with which images ----
    pipeline = open_pipeline(args, device)
    blind = [name for name in plans if ATTACKS[name].gradients]
    if isinstance(pipeline.classifier, QueriedClassifier) and blind:
        raise ValueError(
            f"--attack {' '.join(blind)}: needs gradients, which --classifier {args.classifier} does not "
            f"give; attacks that need labels only: {', '.join(labels_only())}"
        )
    args.target = args.target or ("base" if pipeline.denoiser is None else "defended")
    settle_smoothing(args)
    smoothing = (args.draws, args.fresh, args.N, args.alpha, args.batch)
    target = make_target(pipeline, args.target, args.noise_sd, args.amp, device, args.seed, *smoothing)
    manifest = read_manifest(args.dataset or pipeline.dataset, args.data_dir, args.protocol)
    splits = {split: open_split(args, pipeline, split) for split in dict.fromkeys(args.split)}
    say_order(args.classifier, pipeline.info or pipeline.outputs, manifest.info)

    # ---- attack after attack, each into its folder ----
    for attack, how in plans.items():
        norm = "" if how.norm == ATTACKS[attack].norms[0] else f"_{how.norm}"
        outdir = manifest.path.parent / f"AT_{attack}{norm}{args.suffix}"
        settings = describe(args, pipeline, manifest, device)
        settings |= {"attack": attack, "norm": how.norm, "eps": how.eps, "steps": how.steps}
        folder = AttackedFolder(outdir, settings, args.overwrite)
        try:
            for split, dataset in splits.items():
                attack_split(attack, how, target, split, dataset, folder, args, device)
        finally:
            folder.close()
        print(summary(attack, how, outdir, list(splits)))


def attack_split(
    name: str,
    how: How,
    target: Target,
    split: str,
    dataset: ImageDataset,
    folder: AttackedFolder,
    args: argparse.Namespace,
    device: torch.device,
) -> None:
    """Attack the images of a split that the folder lacks."""
    wanted = [i for i in range(0, len(dataset), args.skip) if (split, i) not in folder.done]
    size = 1 if ATTACKS[name].alone else max(1, args.batch // target.draws)
    starts = None if ATTACKS[name].gradients else starting_images(dataset).to(device)
    with tqdm(total=len(wanted), desc=f"{name} {split}", disable=None, unit="image") as progress:
        for first in range(0, len(wanted), size):
            indices = wanted[first : first + size]
            images = torch.stack([dataset[i][0] for i in indices]).to(device)
            labels = dataset.labels[indices].to(device)
            generators = [image_generator(args.seed, f"{split} {i}") for i in indices]
            target.restart()
            queries, began = target.model.queries, time.perf_counter()
            attacked = run_attack(
                name, target.model, images, labels, dataclasses.replace(how, generators=generators, starts=starts)
            )
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds = (time.perf_counter() - began) / len(indices)
            queries = (target.model.queries - queries) * target.draws // len(indices)

            saved = to_8bit(attacked, images, how.norm, how.eps)
            clean, before, after = (
                target.predict(each, indices).tolist() for each in (images, attacked, saved.float() / 255)
            )
            delta = ((saved.double() - (images.double() * 255).round()) / 255).flatten(1)
            l2, linf = delta.norm(dim=1).tolist(), delta.abs().amax(dim=1).tolist()
            for j, (i, label) in enumerate(zip(indices, labels.tolist(), strict=True)):
                won = [int(clean[j] == label and answer not in (label, -1)) for answer in (before[j], after[j])]
                numbers = (*won, f"{l2[j]:.6f}", f"{linf[j]:.6f}", queries, f"{seconds:.3f}")
                source, pixels = dataset.rows[i]["path"], saved[j].cpu().numpy()
                folder.save(split, i, source, label, pixels, clean[j], before[j], after[j], *numbers)
            progress.update(len(indices))


def describe(args: argparse.Namespace, pipeline: Pipeline, manifest: Manifest, device: torch.device) -> dict:
    """The settings of a folder of attacked images, but for its attack."""
    parts = [(part, getattr(args, f"pretrained_{part}")) for part in ("denoiser", "encoder", "decoder")]
    return {
        **{key: manifest.settings[key] for key in ("dataset", "protocol", "info")},
        "dataset_manifest": manifest.digest,
        "images": {split: len(manifest.split(split)) for split in SPLITS},
        "image_size": pipeline.image_size,
        "channels": pipeline.channels,
        "skip": args.skip,
        "target": args.target,
        **({} if args.target == "base" else {"noise_sd": args.noise_sd}),
        **({flag: getattr(args, flag) for flag in SMOOTHED} if args.target == "smoothed" else {}),
        "seed": args.seed,
        "amp": args.amp,
        "classifier": str(args.classifier),
        "classifier_sha256": fingerprint(args.classifier),
        **fixed_by(args, pipeline),
        "denoiser": str(args.pretrained_denoiser) if args.pretrained_denoiser else None,
        **{f"{part}_sha256": fingerprint(path) for part, path in parts if path and args.target != "base"},
        "batch": args.batch,
        "device": device.type,
        "command": shlex.join(["attacks/generate.py", *sys.argv[1:]]),
        "hardware": hardware(device),
        "torch": torch.__version__,
    }


def summary(name: str, how: How, outdir: Path, splits: list[str]) -> str:
    """One line: how many right answers the attack turned, before and after rounding, and where the images lie."""
    rows = [row for row in read_attacked(outdir)[0] if row["split"] in splits]
    right = [row for row in rows if row["predict_clean"] == row["label"]]
    won, kept = (sum(int(row[column]) for row in right) for column in ("success", "success_saved"))
    lengths = sorted(float(row["l2"]) for row in right if row["success_saved"] == "1")
    median = f", median L2 {lengths[len(lengths) // 2]:.3f}" if lengths else ""
    budget = "" if how.eps is None else f", {how.norm} at most {how.eps:.4g}"
    return (
        f"{name}{budget}, {how.steps} step(s), on {' + '.join(splits)}: fools {won} of the {len(right)} images "
        f"answered right ({len(rows)} in all), {kept} after 8 bits{median}: {outdir}/manifest.csv"
    )


if __name__ == "__main__":
    start(get_args_parser, main)
