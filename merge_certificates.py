"""Merge the TSVs of all shards of one certification into one TSV, sorted by image.

    python merge_certificates.py runs/certify_shard_*.tsv --outfile runs/certify.tsv

Raises an error if a shard is missing, given twice, unfinished, or belongs to a run with other settings.
"""

from __future__ import annotations

from common.script import start

import argparse
from pathlib import Path

from certification.certificate_file import merge
from common import cli


def get_args_parser() -> cli.Parser:
    parser = cli.Parser(__doc__, resumes=False)
    parser.add_argument("shards", type=Path, nargs="+", metavar="SHARD.tsv", help="TSVs of all shards of one run")
    parser.add_argument("--outfile", type=Path, required=True, help="merged TSV; settings go to <outfile>.json")
    parser.add_common_flags()
    return parser


def main(args: argparse.Namespace) -> None:
    count = merge(args.shards, args.outfile)
    print(f"{len(args.shards)} shards, {count} images: {args.outfile}")


if __name__ == "__main__":
    start(get_args_parser, main)
