"""The common command line: spelling, configuration files, exit codes."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from common import cli

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = [
    "prepare_data.py",
    "train_classifier.py",
    "ds_main.py",
    "main_ds.py",
    "AE_DS_verify.py",
    "merge_certificates.py",
    "export_model.py",
    "evaluate.py",
    "evaluate_reconstruction.py",
    "make_tables.py",
    "make_report.py",
    "reproduce.py",
    "attacks/generate.py",
    "attacks/check_certificates.py",
]


def parser() -> cli.Parser:
    made = cli.Parser("test", prog="test.py")
    made.add_argument("--noise_sd", type=cli.positive_float, nargs="+", default=[0.25])
    made.add_argument("--alpha", type=cli.probability, default=0.001)
    made.add_argument("--N", type=cli.positive_int, default=10)
    made.add_argument("--resume", action="store_true")
    cli.amp_flag(made)
    made.add_common_flags()
    return made


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script):
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "--seed" in done.stdout
    assert "--device" in done.stdout


def test_help_shows_each_default_once():
    made = parser()
    made.add_argument("--workers", type=int, default=0, help="processes")
    made.add_argument("--fold", type=cli.shard, default=(0, 5), help="part I of K (default: 0/5)")
    made.add_argument("--sigma", nargs="+", default=[0.25, 0.5], help="noise")
    made.add_argument("--suffix", default="", help="end of the name")
    made.add_argument("--augment", action=argparse.BooleanOptionalAction, default=True, help="change images")
    text = " ".join(made.format_help().split())
    for part in ("processes (default: 0)", "noise (default: 0.25 0.5)", "change images (default: on)"):
        assert part in text
    assert "part I of K (default: 0/5) --sigma" in text
    assert "end of the name --augment" in text


def test_dashes_and_underscores_are_the_same():
    assert parser().parse_args(["--noise-sd", "0.5"]).noise_sd == [0.5]
    assert parser().parse_args(["--noise-sd=0.5"]).noise_sd == [0.5]
    assert parser().parse_args(["--no_amp"]).amp is False
    assert parser().parse_args([]).amp is None


def test_config_file(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("noise_sd: [0.1, 0.5]\nN: 20\nresume: true\namp: false\nalpha: null\n")
    args = parser().parse_args(["--config", str(config), "--N", "30"])
    assert (args.noise_sd, args.N, args.resume, args.amp, args.alpha) == ([0.1, 0.5], 30, True, False, 0.001)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--noise_sd", "0"], ("--noise_sd", "must be a number > 0, got 0")),
        (["--noise_sd", "nan"], ("--noise_sd", "must be a number > 0")),
        (["--noise_sd", "much"], ("--noise_sd", "must be a number, got 'much'")),
        (["--alpha", "1"], ("--alpha", "between 0 and 1")),
        (["--N", "0"], ("--N", "whole number from 1 to 2147483647")),
        (["--N", "1.5"], ("--N", "whole number")),
        (["--nois", "1"], ("unrecognized", "--nois")),
        (["--config", "gone.yaml"], ("gone.yaml", "cannot be read")),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(argv)
    assert stop.value.code == 2
    message = capsys.readouterr().err.strip()
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_unknown_key_in_a_config_file(tmp_path, capsys):
    config = tmp_path / "a.yaml"
    config.write_text("noise: 1\n")
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--config", str(config)])
    assert stop.value.code == 2
    assert "unknown flag 'noise'" in capsys.readouterr().err
