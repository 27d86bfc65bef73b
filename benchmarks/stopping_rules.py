"""Compare stopping rules on images whose votes were counted: draws per image, certified accuracy, sensitivity.

    python -m benchmarks.stopping_rules --votes results/replay/votes/*.tsv --outfile results/replay/replay.json

A file of --votes has one line per image: `idx label` and the votes of each class. Its settings (sigma, groups) are
beside it. A table that AE_DS_verify.py --no-sequential wrote does as well: its radii tell the votes for the class, and
the others count as one rival; images that abstained are left out. In each replay the class probabilities of an image
are drawn from their posterior given its votes (Dirichlet, prior 1/K per class), the same for all rules, and each rule
is run on draws with these probabilities. Rules:

- published: n draws, p_A alone (Cohen et al. 2019);
- all draws: n draws, the margin bound;
- version 1: the e-process that was the default until November 2026 (benchmarks/e_process.py);
- ours: `smoothing.rules.SequentialDraws`.
"""

from __future__ import annotations

from common.script import start

import argparse
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.e_process import EProcessDraws
from common import cli, files
from evaluation.certificates import load
from models import hardware
from smoothing.bounds import lower_confidence_bound
from smoothing.rules import Certificate, Course, FixedDraws, Question, Rule, SequentialDraws, reaches, top_radius

# (sigma, n, radii of interest): those of the committed tables, and 3 sigma at n = 10,000
CASES = (
    (0.25, 1000, (0.0, 0.25, 0.5)),
    (0.25, 10_000, (0.0, 0.25, 0.5)),
    (0.25, 10_000, (0.0, 0.25, 0.5, 0.75)),
    (0.5, 1000, (0.0, 0.25, 0.5, 0.75, 1.0)),
    (0.5, 2000, (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)),
    (1.0, 1000, (0.0, 0.25, 0.5, 0.75, 1.0)),
    (1.0, 2000, (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)),
)


class AllDraws(FixedDraws):
    """n draws for every image, by the margin bound."""

    def begin(self, n0: int, coins: np.random.BitGenerator) -> Course:
        course = super().begin(n0, coins)
        course.bound = "margin"
        return course


RULES = {"published": FixedDraws, "all draws": AllDraws, "version 1": EProcessDraws, "ours": SequentialDraws}


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    parser.add_argument("--votes", type=Path, nargs="+", required=True, metavar="TSV", help="TSVs of counted votes")
    parser.add_argument("--N0", type=cli.positive_int, default=100, help="draws per image that choose the class")
    parser.add_argument("--alpha", type=cli.probability, default=0.001, help="failure probability per image")
    parser.add_argument("--replays", type=cli.positive_int, default=10, help="replays of each image")
    parser.add_argument("--outfile", type=Path, required=True, help="JSON file; a table is written beside it as .md")
    parser.add_common_flags()
    return parser


@dataclass(frozen=True)
class Counted:
    """Votes `[N, K]` of images under noise `sigma`, their true classes `[N]`, and the groups of classes."""

    sigma: float
    votes: np.ndarray
    labels: np.ndarray
    groups: tuple[tuple[int, ...], ...]


def read_votes(path: Path) -> Counted:
    """The votes of a file of --votes, or those that a table of fixed draws tells."""
    settings = files.read_json(files.settings_path(path))
    if "method" not in settings:
        table = np.loadtxt(path, dtype=int, skiprows=1)
        groups = tuple(tuple(members) for members in settings["groups"])
        return Counted(settings["sigma"], table[:, 2:], table[:, 1], groups)
    if settings["method"] != "fixed":
        raise ValueError(f"--votes {path}: its draws stopped early; give a table of AE_DS_verify.py --no-sequential")
    rows, n = load(path.stem, path).rows, settings["N"]
    rows = rows[rows["radius"] > 0]
    possible = [top_radius(settings["sigma"], lower_confidence_bound(k, n, settings["alpha"])) for k in range(n + 1)]
    votes = np.abs(rows["radius"][:, None] - np.array(possible)[None]).argmin(axis=1)
    return Counted(settings["sigma"], np.stack([votes, n - votes], axis=1), 1 - rows["correct"], ())


def run(rule: Rule, p: np.ndarray, n0: int, rng: np.random.Generator) -> Certificate:
    """One certificate of an image with class probabilities `p`."""
    course, certificate = rule.begin(n0, np.random.PCG64(int(rng.integers(2**63)))), None
    while certificate is None:
        certificate = course.look(rng.multinomial(course.wants, p))
    return certificate


def replay(counted: Counted, n: int, radii: tuple[float, ...], args: argparse.Namespace) -> dict:
    """For each rule: draws per image; and at each radius certified accuracy and, of files that tell the groups, the
    share of images that are certified to be in their own group, both in %."""
    question, found = Question(counted.sigma, args.alpha, counted.groups), {}
    posterior = np.random.default_rng(args.seed)
    prior = 1 / counted.votes.shape[1]
    images = [
        (posterior.dirichlet(votes + prior), label)
        for votes, label in zip(counted.votes, counted.labels, strict=True)
        for _ in range(args.replays)
    ]
    for name, make in RULES.items():
        rule = make(question, n) if name in ("published", "all draws") else make(question, n, radii)
        rng, draws = np.random.default_rng(args.seed), []
        accurate, grouped = np.zeros(len(radii)), np.zeros(len(radii))
        for p, label in tqdm(images, desc=f"{name}, sigma {counted.sigma:g}, n {n}", disable=None):
            each = run(rule, p, args.N0, rng)
            draws.append(each.draws)
            accurate += [each.prediction == label and reaches(each.radius, r) for r in radii]
            own = next((i for i, members in enumerate(counted.groups) if label in members), None)
            grouped += [each.group == own and reaches(each.group_radius, r) for r in radii]
        found[name] = {"draws": float(np.mean(draws)), "certified %": (100 * accurate / len(images)).tolist()}
        if counted.groups:
            found[name]["group certified %"] = (100 * grouped / len(images)).tolist()
    return found


def main(args: argparse.Namespace) -> None:
    read = [read_votes(path) for path in args.votes]
    result: dict[str, Any] = {
        "settings": {key: list(map(str, value)) if key == "votes" else str(value) for key, value in vars(args).items()},
        "hardware": hardware("cpu"),
        "cases": [],
    }
    lines = []
    for (sigma, n, radii), classes in itertools.product(CASES, sorted({each.votes.shape[1] for each in read})):
        mine = [each for each in read if (each.sigma, each.votes.shape[1]) == (sigma, classes)]
        if not mine:
            continue
        counted = Counted(
            sigma,
            np.concatenate([each.votes for each in mine]),
            np.concatenate([each.labels for each in mine]),
            mine[0].groups,
        )
        found = replay(counted, n, radii, args)
        case = {"sigma": sigma, "N": n, "radii": radii, "classes": classes, "images": len(counted.votes)}
        result["cases"].append(case | {"rules": found})
        for name, each in found.items():
            shown = [" / ".join(f"{value:.1f}" for value in each[key]) for key in each if key != "draws"]
            lines.append([f"{sigma:g}", n, len(counted.votes), classes, name, f"{each['draws']:.0f}", *shown])
        files.write_json(args.outfile, result)
    header = ["σ", "N", "images", "classes", "rule", "draws", "certified accuracy (%)", "certified in its group (%)"]
    width = max(map(len, lines))
    text = tabulate(lines, header[:width], tablefmt="pipe", disable_numparse=True)
    files.write_text(args.outfile.with_suffix(".md"), text + "\n")
    print(text)
    print(f"raw: {args.outfile}")


if __name__ == "__main__":
    start(get_args_parser, main)
