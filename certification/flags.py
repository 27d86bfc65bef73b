"""The flags of a certification, and the combinations of them that raise an error."""

from __future__ import annotations

import argparse

from common import cli
from smoothing.noise import KINDS
from smoothing.rules import GROUP_RULES

RADII = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5]
SMALLEST_SIGMA = 0.001
FARTHEST = 1500  # sigma: what the default radii are at the smallest one


def add_smoothing_flags(group: cli.Flags) -> None:
    """Add the noise, the number of draws, and what they decide."""
    group.add_argument(
        "--sigma",
        type=cli.positive_float,
        nargs="+",
        required=True,
        help="standard deviations of the noise on the [0, 1] scale; one TSV each",
    )
    group.add_argument(
        "--N0", type=cli.positive_int, default=100, help="draws per image that choose the class (the pilot), at most"
    )
    group.add_argument(
        "--N",
        type=cli.positive_int,
        default=10_000,
        help="draws per image that bound the probability of the class, at most",
    )
    group.add_argument("--alpha", type=cli.probability, default=0.001, help="failure probability per image")
    group.add_argument(
        "--sequential",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stop the draws for an image as soon as all --radii are decided; --no-sequential: always N draws",
    )
    group.add_argument(
        "--group_rule",
        choices=GROUP_RULES,
        default="vote",
        help="decide disease or health by the summed votes of each group (vote) or by the class with most votes "
        "(class)",
    )
    group.add_argument(
        "--radii",
        type=cli.non_negative_float,
        nargs="+",
        metavar="R",
        help="L2 radii of interest on the [0, 1] scale, ascending; draws stop when these are decided "
        f"(default: {' '.join(map(str, RADII))})",
    )
    group.add_argument(
        "--radius_tol",
        type=cli.positive_float,
        metavar="TOL",
        help="plan the draws so that each radius loses about TOL * sigma; use it instead of --radii for curves and ACR",
    )
    group.add_argument(
        "--noise",
        choices=KINDS,
        default="exact",
        help="exact: certificates hold in floating point; float: as published, without that guarantee",
    )
    group.add_argument(
        "--batch",
        type=cli.positive_int,
        help="draws per forward pass (default: on CUDA 1000, else the fastest of 32, 64 and 128 by trial; without a "
        "trial 64, for short runs, black boxes and --compile)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="run through torch.compile; takes minutes at the start, and gained at most 4%% on a CPU",
    )


def check_flags(args: argparse.Namespace) -> None:
    """Raises ValueError if flags do not fit each other. Sets --radii to its default, `asked` to the radii that were
    given (else the smallest that is worth a column), and drops repeated --sigma."""
    if args.N < args.N0:
        raise ValueError(f"--N {args.N}: must be at least --N0 ({args.N0})")
    if args.radius_tol is not None and (args.radii or not args.sequential):
        raise ValueError("--radius_tol plans the draws itself: leave out --radii and --no-sequential")
    args.asked = args.radii or ([] if args.radius_tol else RADII[1:2])
    args.radii = args.radii or RADII
    args.sigma = list(dict.fromkeys(args.sigma))
    if args.radii != sorted(set(args.radii)):
        raise ValueError(f"--radii {' '.join(map(str, args.radii))}: must be ascending")
    if min(args.sigma) < SMALLEST_SIGMA:
        raise ValueError(f"--sigma {min(args.sigma):g}: must be at least {SMALLEST_SIGMA}, a quarter of an 8-bit level")
    if args.radii[-1] > FARTHEST * min(args.sigma):
        raise ValueError(
            f"--radii {args.radii[-1]:g}: is more than {FARTHEST} times --sigma {min(args.sigma):g}; beyond 8 times it "
            "no number of draws proves anything"
        )
    _check_files(args)


def _check_files(args: argparse.Namespace) -> None:
    if args.outfile is None and not args.predict:
        raise ValueError("--outfile is needed (or --predict IMAGE …)")
    if args.predict and (args.shard or args.skip > 1 or args.max >= 0):
        raise ValueError("--shard, --skip and --max choose images of a split; --predict certifies all that it names")
    if args.predict and args.outfile is not None and args.outfile.suffix != ".json":
        raise ValueError(f"--outfile {args.outfile}: with --predict it is JSON; name it .json")
    if args.outfile is not None and args.outfile.suffix == ".csv":
        raise ValueError(f"--outfile {args.outfile}: certificates are separated by tabs; name it .tsv")
