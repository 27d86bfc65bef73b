"""Run every command behind a table of results, from the raw images on, in order: a file in configs/ lists them.

    python reproduce.py configs/brain_tumor_64.yaml --source DIR --dry_run       # print the commands
    python reproduce.py configs/brain_tumor_64.yaml --source DIR                 # run them, one after the other
    python reproduce.py configs/brain_tumor_64.yaml --source DIR --only certify  # of a kind, or by name

Everything is written below the current folder. Start in an empty one (python ../reproduce.py ../configs/…): networks
trained anew are not those whose certificates lie in results/, and AE_DS_verify.py raises an error rather than add to
the certificates of another network. Each command is printed before it runs, so that it can be run alone. After an
interruption, the same call resumes.
With Snakemake several run at a time (workflow/Snakefile).
"""

from __future__ import annotations

from common.script import start

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from common import cli
from workflow.jobs import jobs


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "grid",
        type=Path,
        metavar="GRID.yaml",
        help="file in configs/ that says what depends on what (its format: workflow/jobs.py)",
    )
    parser.add_argument("--source", metavar="DIR", help="folder of the raw images, as for prepare_data.py")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="WORD",
        help="run only the jobs whose name holds all of these words, as data, certify or table",
    )
    parser.add_argument("--dry_run", action="store_true", help="print the commands, run none")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    try:
        grid = yaml.safe_load(args.grid.read_text(encoding="utf-8"))
        found = jobs(grid, args.source)
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{args.grid}: {' '.join(str(error).split())}") from error
    chosen = [job for job in found if all(word in job.name for word in args.only)]
    if not chosen:
        raise ValueError(f"--only {' '.join(args.only)}: no such job; there are {', '.join(job.name for job in found)}")
    root = Path(os.path.relpath(Path(__file__).parent))
    common = ["--seed", str(args.seed)] * (args.seed != 0) + ["--device", args.device] * (args.device != "auto")
    for i, job in enumerate(chosen, 1):
        command = [str(root / job.command[0]), *job.command[1:], *common]
        print(f"# {job.name} ({i} of {len(chosen)})\npython {shlex.join(command)}", flush=True)
        if args.dry_run:
            continue
        done = subprocess.run([sys.executable, *command])
        if done.returncode:
            raise ValueError(f"{job.name}: failed with exit code {done.returncode}; its error message is above")


if __name__ == "__main__":
    start(get_args_parser, main)
