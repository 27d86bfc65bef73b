"""FGSM, PGD and DDN against adv-lib's and foolbox's: images per second at equal steps on one model, in one run.

    python -m benchmarks.attacks --classifier runs/Phantom_MRI/classifier/best.pth.tar \\
        --outfile results/benchmarks/attacks.json

All attack the same pipeline (its frozen form, as attacks/generate.py runs it) on the same images. The libraries take
turns, and of each the fastest of --repeats runs counts. `fooled` is the share of rightly answered images that are
answered wrongly afterwards. adv-lib has no FGSM: one step of its PGD does that work (and returns the clean image, since
it never looks at where the step leads). foolbox is optional.
"""

from __future__ import annotations

from common.script import start

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn

from attacks.ddn import ddn
from attacks.fgsm import fgsm
from attacks.folder import open_split
from attacks.pgd import pgd
from attacks.randomness import image_generator
from common import cli, files
from models import hardware, resolve_amp, select_device
from models.flags import open_pipeline


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_pipeline_flags()
    parser.add_argument(
        "--noise_sd",
        type=cli.non_negative_float,
        default=0.25,
        help="noise level that the denoiser is told, on the [0, 1] scale",
    )
    parser.add_argument("--images", type=cli.positive_int, default=64, help="number of images, all in one batch")
    parser.add_argument("--steps", type=cli.positive_int, default=20, help="steps of PGD and DDN")
    parser.add_argument(
        "--eps", type=cli.positive_float, default=8 / 255, help="L∞ budget of FGSM and PGD on the [0, 1] scale"
    )
    parser.add_argument("--repeats", type=cli.positive_int, default=5, help="runs of each; the fastest counts")
    parser.add_argument("--outfile", type=Path, required=True, help="JSON file to write")
    parser.add_common_flags()
    parser.set_defaults(amp=False)  # as attacks/generate.py
    return parser


def contestants(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int, seed: int) -> dict[tuple, Callable]:
    """(attack, library) → a run of it; PGD with steps of 2.5 eps / steps from a random start."""
    from adv_lib.attacks import ddn as adv_lib_ddn
    from adv_lib.attacks import pgd_linf

    def starts() -> list[torch.Generator]:
        return [image_generator(seed, i) for i in range(len(x))]

    relative = 2.5 / steps
    runs = {
        ("FGSM", "ours"): lambda: fgsm(model, x, y, eps),
        ("FGSM", "adv-lib"): lambda: pgd_linf(model, x, y, eps, steps=1, random_init=False, relative_step_size=1),
        ("PGD", "ours"): lambda: pgd(model, x, y, eps, "Linf", steps, generators=starts()),
        ("PGD", "adv-lib"): lambda: pgd_linf(model, x, y, eps, steps=steps, relative_step_size=relative),
        ("DDN", "ours"): lambda: ddn(model, x, y, steps),
        ("DDN", "adv-lib"): lambda: adv_lib_ddn(model, x, y, steps=steps),
    }
    if importlib.util.find_spec("foolbox") is None:
        print("foolbox is not installed and left out (pip install foolbox)")
        return runs
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    theirs = {
        "FGSM": (foolbox.attacks.LinfFastGradientAttack(random_start=False), eps),
        "PGD": (foolbox.attacks.LinfPGD(rel_stepsize=relative, steps=steps, random_start=True), eps),
        "DDN": (foolbox.attacks.DDNAttack(steps=steps), None),
    }
    return runs | {
        (name, "foolbox"): lambda attack=attack, limit=limit: attack(wrapped, x, y, epsilons=limit)[1]
        for name, (attack, limit) in theirs.items()
    }


def main(args: argparse.Namespace) -> None:
    device = select_device(args.device)
    pipeline = open_pipeline(args, device)
    model = pipeline.at(args.noise_sd, resolve_amp(args.amp, device)).eval()
    data = open_split(args, pipeline, args.split)
    chosen = torch.linspace(0, len(data) - 1, min(args.images, len(data))).long().tolist()
    x, y = torch.stack([data[i][0] for i in chosen]).to(device), data.labels[chosen].to(device)
    runs = contestants(model, x, y, args.eps, args.steps, args.seed)

    # ---- everybody in turn, so that a machine that slows down slows all ----
    best, attacked = dict.fromkeys(runs, float("inf")), {}
    for _ in range(args.repeats + 1):  # the first to warm up
        for key, run in runs.items():
            torch.manual_seed(args.seed)
            began = time.perf_counter()
            found = run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best[key] = min(best[key], time.perf_counter() - began) if key in attacked else float("inf")
            attacked[key] = found.detach()

    # ---- the table ----
    with torch.no_grad():
        right = model(x).argmax(dim=1) == y
        rows = [
            {
                "attack": attack,
                "library": library,
                "steps": 1 if attack == "FGSM" else args.steps,
                "images/s": len(x) / best[attack, library],
                "ratio to ours": best[attack, "ours"] / best[attack, library],
                "fooled": (right & (model(attacked[attack, library]).argmax(dim=1) != y)).sum().item()
                / max(1, right.sum().item()),
            }
            for attack, library in sorted(runs, key=lambda key: list(dict.fromkeys(k[0] for k in runs)).index(key[0]))
        ]
    print(tabulate(rows, headers="keys", floatfmt=".3f"))
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    files.write_json(
        args.outfile, {"settings": settings, "hardware": hardware(device), "torch": torch.__version__, "rows": rows}
    )
    print(f"raw: {args.outfile}")


if __name__ == "__main__":
    start(get_args_parser, main)
