"""Attack a pipeline and save the images losslessly, with what became of each.

    python attacks/generate.py --classifier runs/Phantom_MRI/classifier/best.pth.tar --attack FGSM PGD DDN \\
        --split train val test
    python attacks/generate.py --classifier … --pretrained_denoiser … --target smoothed --noise_sd 0.25 --attack PGD \\
        --norm L2 --eps 0.5 --suffix _smoothed

writes Dataset/<name>/AT_<ATTACK>/<label>/<split>_<idx>.png (AT_<ATTACK>_<NORM> where the norm is not the attack's
first) and manifest.csv: source, label, predictions and success before and after the 8-bit round trip, L2 and L∞ of what
was saved on the [0, 1] scale, queries, seconds. A success turns a right answer into a wrong class; a failed attempt is
saved too, with success 0. The budget holds for the saved image. The same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

if __package__ in (None, ""):  # run as a file: the project's root is where its packages lie
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from attacks import ATTACKS, How, labels_only, run_attack, settle
from attacks.budget import to_8bit
from attacks.folder import AttackedFolder, open_split, read_attacked, starting_images
from attacks.randomness import image_generator
from attacks.targets import TARGETS, Target, make_target
from common import cli, files
from datasets import SPLITS, ImageDataset, Manifest, read_manifest
from models import Pipeline, QueriedClassifier, fingerprint, hardware, select_device
from models.flags import open_pipeline

SMOOTHED = {"draws": 32, "fresh": False, "N": 200, "alpha": 0.001}  # defaults of what --target smoothed alone takes


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags(split=False)
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=["test"], help="which images")
    parser.add_argument("--skip", type=cli.positive_int, default=1, help="only every SKIP-th image")
    parser.add_argument(
        "--noise_sd",
        type=cli.non_negative_float,
        default=0.25,
        help="what the denoiser is told; of --target smoothed its sigma",
    )
    group = parser.add_argument_group("attack")
    group.add_argument("--attack", nargs="+", choices=list(ATTACKS), default=["FGSM"])
    group.add_argument("--eps", type=cli.positive_float, help="budget, [0, 1] scale (default: Linf 8/255, L2 0.5)")
    group.add_argument("--max_norm", type=cli.positive_float, help="cut what attacks without budget (DDN) find to this")
    group.add_argument("--norm", choices=["Linf", "L2", "L1", "L0"], help="(default: the attack's first)")
    group.add_argument("--steps", type=cli.positive_int, help="(default: the attack's own)")
    group.add_argument(
        "--target",
        choices=TARGETS,
        help="what is attacked: f alone, behind its denoiser (default "
        "where there is one), or smoothed with --noise_sd (expected loss over noise)",
    )
    group.add_argument("--draws", type=cli.positive_int, help="smoothed: draws of noise per step (default: 32)")
    group.add_argument("--fresh", action="store_true", default=None, help="smoothed: new draws at each step")
    group.add_argument("--N", type=cli.positive_int, help="smoothed: draws that judge an image (default: 200)")
    group.add_argument("--alpha", type=cli.probability, help="smoothed: level of the judgement (default: 0.001)")
    parser.add_argument(
        "--suffix", type=suffix, default="", help="AT_<ATTACK><suffix>: keeps sets of several pipelines apart"
    )
    parser.add_argument("--overwrite", action="store_true", help="delete a set that was made with other settings")
    parser.add_argument("--batch", type=cli.positive_int, default=64, help="images through the network at once")
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
            f"give; what needs labels only: {', '.join(labels_only())}"
        )
    args.target = args.target or ("base" if pipeline.denoiser is None else "defended")
    settle_smoothing(args)
    smoothing = (args.draws, args.fresh, args.N, args.alpha, args.batch)
    target = make_target(pipeline, args.target, args.noise_sd, args.amp, device, args.seed, *smoothing)
    manifest = read_manifest(args.dataset or pipeline.dataset, args.data_dir, args.protocol)
    splits = {split: open_split(args, pipeline, split) for split in dict.fromkeys(args.split)}

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


def planned(args: argparse.Namespace) -> dict[str, How]:
    """The settings of each attack. Raises ValueError if none of the attacks takes a flag that is given; warns of a
    budget that rounding undoes."""
    plans = {name: settle(name, args.norm, args.eps, args.steps, args.max_norm) for name in args.attack}
    for flag, budget in (("eps", True), ("max_norm", False)):
        if getattr(args, flag) is not None and all(ATTACKS[name].budget is not budget for name in plans):
            other = "--max_norm cuts what they find" if budget else "theirs is --eps"
            raise ValueError(f"--{flag}: is not for {', '.join(plans)}; {other}")
    if args.steps is not None and all(ATTACKS[name].steps is None for name in plans):
        raise ValueError(f"--steps: {', '.join(plans)} takes one step")
    for name, how in plans.items():
        if how.eps is not None and how.eps < 1 / 255:
            print(
                f"attacks/generate.py: warning: {name}: {how.eps:g} is below 1/255, so nothing survives 8-bit images",
                file=sys.stderr,
            )
    return plans


def settle_smoothing(args: argparse.Namespace) -> None:
    """Set the defaults of the flags of --target smoothed. Raises ValueError if one is given for another target."""
    for flag, default in SMOOTHED.items():
        if getattr(args, flag) is None:
            setattr(args, flag, default)
        elif args.target != "smoothed":
            raise ValueError(f"--{flag}: is for --target smoothed, and {args.target} is attacked")


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
        "denoiser": str(args.pretrained_denoiser) if args.pretrained_denoiser else None,
        **{f"{part}_sha256": files.sha256(path) for part, path in parts if path and args.target != "base"},
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
    cli.run(get_args_parser, main)
