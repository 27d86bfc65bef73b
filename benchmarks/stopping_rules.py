"""Compare stopping rules on images whose votes were counted: draws per image, certified accuracy, sensitivity.

    python -m benchmarks.stopping_rules --votes results/replay/votes/*.tsv --outfile results/replay/replay.json

A file of --votes has one line per image: `idx label` and the votes of each class. Its settings (sigma, groups) are
beside it. In each replay the class probabilities of an image are drawn from their posterior given its votes (Dirichlet,
prior 1/K per class), and a rule is run on draws with these probabilities. Rules:

- published: n draws, p_A alone (Cohen et al. 2019);
- all draws: n draws, the margin bound;
- version 1: the e-process that was the default until November 2026 (benchmarks/e_process.py);
- ours: `smoothing.rules.SequentialDraws`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.e_process import EProcessDraws
from common import cli, files
from models import hardware
from smoothing.rules import Certificate, Course, FixedDraws, Question, Rule, SequentialDraws, reaches

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
    parser = cli.Parser(__doc__, goes_on=False)
    parser.add_argument("--votes", type=Path, nargs="+", required=True, metavar="TSV", help="TSVs of counted votes")
    parser.add_argument("--N0", type=cli.positive_int, default=100, help="draws per image that choose the class")
    parser.add_argument("--alpha", type=cli.probability, default=0.001, help="failure probability per image")
    parser.add_argument("--replays", type=cli.positive_int, default=10, help="replays of each image")
    parser.add_argument("--outfile", type=Path, required=True, help="JSON file; a table is written beside it as .md")
    parser.add_common_flags()
    return parser


def run(rule: Rule, p: np.ndarray, n0: int, rng: np.random.Generator) -> Certificate:
    """One certificate of an image with class probabilities `p`."""
    course, certificate = rule.begin(n0, np.random.PCG64(int(rng.integers(2**63)))), None
    while certificate is None:
        certificate = course.look(rng.multinomial(course.wants, p))
    return certificate


def replay(votes: np.ndarray, labels: np.ndarray, groups: tuple, case: tuple, args: argparse.Namespace) -> dict:
    """For each rule: draws per image; and at each radius certified accuracy and the share of images that are certified
    to be in their own group, both in %."""
    sigma, n, radii = case
    question, found = Question(sigma, args.alpha, groups), {}
    for name, make in RULES.items():
        rule = make(question, n) if name in ("published", "all draws") else make(question, n, radii)
        rng, draws = np.random.default_rng(args.seed), []
        accurate, grouped = np.zeros(len(radii)), np.zeros(len(radii))
        for counts, label in zip(
            tqdm(votes, desc=f"{name}, sigma {sigma:g}, n {n}", disable=None), labels, strict=True
        ):
            own = next(i for i, members in enumerate(groups) if label in members)
            for _ in range(args.replays):
                each = run(rule, rng.dirichlet(counts + 1 / len(counts)), args.N0, rng)
                draws.append(each.draws)
                accurate += [each.prediction == label and reaches(each.radius, r) for r in radii]
                grouped += [each.group == own and reaches(each.group_radius, r) for r in radii]
        runs = len(draws) / 100
        found[name] = {
            "draws": float(np.mean(draws)),
            "certified %": (accurate / runs).tolist(),
            "group certified %": (grouped / runs).tolist(),
        }
    return found


def main(args: argparse.Namespace) -> None:
    tables = {
        path: (np.loadtxt(path, dtype=int, skiprows=1), files.read_json(files.settings_path(path)))
        for path in args.votes
    }
    result: dict[str, Any] = {
        "settings": {key: str(value) for key, value in vars(args).items()},
        "hardware": hardware("cpu"),
        "cases": [],
    }
    lines = []
    for case in CASES:
        mine = [(table, settings) for table, settings in tables.values() if settings["sigma"] == case[0]]
        if not mine:
            continue
        groups = tuple(tuple(members) for members in mine[0][1]["groups"])
        table = np.concatenate([table for table, _ in mine])
        found = replay(table[:, 2:], table[:, 1], groups, case, args)
        result["cases"].append({"sigma": case[0], "N": case[1], "radii": case[2], "images": len(table), "rules": found})
        for name, each in found.items():
            accuracy = " / ".join(f"{value:.1f}" for value in each["certified %"])
            group = " / ".join(f"{value:.1f}" for value in each["group certified %"])
            lines.append([f"{case[0]:g}", case[1], name, f"{each['draws']:.0f}", accuracy, group])
        files.write_json(args.outfile, result)
    header = ["σ", "N", "rule", "draws", "certified accuracy (%) at each radius", "certified in its group (%)"]
    text = tabulate(lines, header, tablefmt="pipe", disable_numparse=True)
    files.write_text(args.outfile.with_suffix(".md"), text + "\n")
    print(text)
    print(f"raw: {args.outfile}")


if __name__ == "__main__":
    cli.run(get_args_parser, main)
