"""The flags of attacks: which, on what, how strong; and what they may not be together."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from attacks import ATTACKS, Attack, How, settle
from attacks.targets import TARGETS
from common import cli
from core import draws_to_decide

SMOOTHED = {"draws": 32, "fresh": False, "N": 200, "alpha": 0.001}  # defaults of the flags of --target smoothed


def defaults(of: Callable[[Attack], object]) -> str:
    """What `of` names for each attack, in words: `Linf for FGSM, PGD; L2 for DDN`."""
    names: dict[object, list[str]] = {}
    for name, attack in ATTACKS.items():
        names.setdefault(of(attack), []).append(name)
    return "; ".join(f"{value} for {', '.join(each)}" for value, each in names.items())


def add_attack_flags(group: cli.Flags) -> None:
    """Add --attack, its strength and its target."""
    group.add_argument(
        "--attack",
        nargs="+",
        choices=list(ATTACKS),
        default=["FGSM"],
        metavar="NAME",
        help=f"attacks to run, one after the other: {', '.join(ATTACKS)}",
    )
    group.add_argument(
        "--eps",
        type=cli.positive_float,
        help="budget of FGSM, PGD and others on the [0, 1] scale (default: 8/255 for Linf, 0.5 for L2)",
    )
    group.add_argument(
        "--max_norm",
        type=cli.positive_float,
        help="limit for attacks without a budget, as DDN: longer perturbations are shortened to it",
    )
    group.add_argument(
        "--norm",
        choices=["Linf", "L2", "L1", "L0"],
        help="norm that is limited or minimised (default: " + defaults(lambda attack: attack.norms[0]) + ")",
    )
    group.add_argument(
        "--steps",
        type=cli.positive_int,
        help="steps of the attack (default: " + defaults(lambda attack: attack.steps or "one step") + ")",
    )
    group.add_argument(
        "--target",
        choices=TARGETS,
        help="what is attacked: base: f alone; defended: f behind its denoiser (default if there is one); "
        "smoothed: their smoothed classifier with --noise_sd, by its expected loss over noise",
    )
    group.add_argument(
        "--draws", type=cli.positive_int, help="draws of noise per step; only with --target smoothed (default: 32)"
    )
    group.add_argument(
        "--fresh", action="store_true", default=None, help="draw new noise at each step; only with --target smoothed"
    )
    group.add_argument(
        "--N",
        type=cli.positive_int,
        help="draws of noise that decide whether an image is fooled; only with --target smoothed (default: 200)",
    )
    group.add_argument(
        "--alpha",
        type=cli.probability,
        help="error probability of that decision; only with --target smoothed (default: 0.001)",
    )


def planned(args: argparse.Namespace) -> dict[str, How]:
    """The settings of each attack. Raises ValueError if none of the attacks takes a flag that is given; warns of a
    budget that rounding undoes."""
    plans = {name: settle(name, args.norm, args.eps, args.steps, args.max_norm) for name in args.attack}
    for flag, budget in (("eps", True), ("max_norm", False)):
        if getattr(args, flag) is not None and all(ATTACKS[name].budget is not budget for name in plans):
            other = "use --max_norm, which limits what they find" if budget else "use --eps"
            raise ValueError(f"--{flag}: not for {', '.join(plans)}; {other}")
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
    """Set the defaults of the flags of --target smoothed. Raises ValueError if one is given for another target, or if
    --N can decide nothing."""
    for flag, default in SMOOTHED.items():
        if getattr(args, flag) is None:
            setattr(args, flag, default)
        elif args.target != "smoothed":
            raise ValueError(f"--{flag}: only with --target smoothed; here the target is {args.target}")
    if args.target == "smoothed":
        check_votes(args.N, args.alpha)


def check_votes(n: int, alpha: float) -> None:
    """Raises ValueError if `n` draws decide nothing at level `alpha`: then the smoothed classifier always abstains."""
    if n < (least := draws_to_decide(alpha)):
        raise ValueError(
            f"--N {n}: decides nothing at --alpha {alpha:g}, even if all draws agree, and every answer would be an "
            f"abstention; it takes at least --N {least}"
        )
